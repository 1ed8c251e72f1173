"""What fills are worth: figures that need a truth, a set of pictures, or another network."""
