"""What the peers' benchmark trains and measures: manyfill, and adapters to checkouts of others' code."""
