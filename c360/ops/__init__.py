"""Tools around a running app: topics, load, reset, verify, dead letters, the development broker. They look in."""
