"""What has happened: the database, its schema, the journal and the rows of runs."""
