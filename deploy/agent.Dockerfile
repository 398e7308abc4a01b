# The agent of a device:  docker build -f deploy/agent.Dockerfile -t fedfleet-agent .
# x86-64 gets ONNX Runtime with its training build (engines ort-graph and ort-training), other processors plain
# ONNX Runtime (ort-graph).

FROM python:3.12.11-slim-bookworm AS build
COPY . /source
RUN ["python", "-P", "/source/scripts/install", "agent", "/opt/fedfleet"]

FROM python:3.12.11-slim-bookworm
RUN useradd --uid 10001 --user-group --no-log-init --no-create-home --home-dir /nonexistent \
      --shell /usr/sbin/nologin fedfleet \
    && install -d -o fedfleet -g fedfleet -m 0700 /data /identity
COPY --from=build /opt/fedfleet /opt/fedfleet
# Modules come from the installation only, never from the working folder; the root may be read-only; the
# heartbeat is in /tmp, which should be a tmpfs.
ENV PATH=/opt/fedfleet/bin:$PATH \
    PYTHONSAFEPATH=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    RUNTIME_DIRECTORY=/tmp
USER 10001:10001
WORKDIR /data
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s --retries=4 CMD ["fedfleet", "health"]
ENTRYPOINT ["fedfleet"]
CMD ["agent"]
