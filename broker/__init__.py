"""The message bus: one Transport protocol, MQTT, an in-memory twin and an embedded broker."""
