"""An oracle: a model of trackers, and scenarios over real rings that compare it with the engine."""
