"""Preprocessing: the stage that runs preprocessors and sent-hooks, and the preprocessors that are shipped."""
