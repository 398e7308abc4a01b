# Eclipse Mosquitto with the state folder that mosquitto.conf names: a volume that is mounted over a folder of
# the image belongs to that folder's owner, else to root, and the broker could not write.

FROM eclipse-mosquitto:2.0.22
RUN mkdir -p /var/lib/mosquitto && chown 1883:1883 /var/lib/mosquitto && chmod 0700 /var/lib/mosquitto
USER 1883:1883
STOPSIGNAL SIGTERM
# Listens on 8883 (22B3), asked of the kernel: a connection would leave a line in the log every time. Whether it
# also serves is what the health of coordinator and guard says, which are connected to it.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["grep", "-q", ":22B3 00000000:0000 0A ", "/proc/net/tcp"]
ENTRYPOINT ["/usr/sbin/mosquitto"]
CMD ["-c", "/mosquitto/config/mosquitto.conf"]
