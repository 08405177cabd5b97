"""Who wants to know: the journal of events, cursors, streams and subscribers."""
