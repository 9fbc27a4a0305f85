"""The only place that talks to Kafka: producer, topics, and the reader of partitions."""
