"""A real Apache Kafka on this machine, for the demo and for tests; needs the extra ``local``."""
