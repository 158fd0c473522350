"""What `c360.ops.dev_kafka` is made of: finding Kafka's jars or docker, broker settings, readiness, the keeper."""
