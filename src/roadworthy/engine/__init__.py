"""Where and when runs execute. The journal says what has happened; an engine only dispatches."""
