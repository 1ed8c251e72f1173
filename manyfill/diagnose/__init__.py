"""What goes on in a model and in a training run, drawn to be looked at: `manyfill levels`, `manyfill diagnose`."""
