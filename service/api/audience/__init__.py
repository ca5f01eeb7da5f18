"""The viewers that this replica sees: counted in memory, told to the database, and read from it."""
