# The servers of a fleet:  docker build -f deploy/coordinator.Dockerfile -t fedfleet-coordinator .
# One image is coordinator, registrar and guard, by its command. With --build-arg EXTRA=demo, a whole fleet.

FROM python:3.12.11-slim-bookworm AS build
ARG EXTRA=coordinator
COPY . /source
RUN python -P /source/scripts/install "$EXTRA" /opt/fedfleet

FROM python:3.12.11-slim-bookworm
RUN useradd --uid 10001 --user-group --no-log-init --no-create-home --home-dir /nonexistent \
      --shell /usr/sbin/nologin fedfleet \
    && install -d -o fedfleet -g fedfleet -m 0700 /data
COPY --from=build /opt/fedfleet /opt/fedfleet
# Modules come from the installation only, never from the working folder; the root may be read-only; the
# heartbeat, and what plotting keeps, is in /tmp, which should be a tmpfs.
ENV PATH=/opt/fedfleet/bin:$PATH \
    PYTHONSAFEPATH=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    MPLCONFIGDIR=/tmp \
    RUNTIME_DIRECTORY=/tmp
USER 10001:10001
WORKDIR /data
# A stopped coordinator leaves its round open and goes on with it when it is started again.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s --retries=4 CMD ["fedfleet", "health"]
ENTRYPOINT ["fedfleet"]
CMD ["coordinator"]
