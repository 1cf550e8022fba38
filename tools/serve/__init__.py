"""Speech as a service: OpenAI's interface, streams, batches of many clients' sentences."""
