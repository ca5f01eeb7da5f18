FROM python:3.11-slim AS build
RUN pip install --no-cache-dir uv==0.13.9
ENV UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never
WORKDIR /app
# The dependencies alone first: they change less often than the code.
COPY pyproject.toml uv.lock ./
COPY clients/python/pyproject.toml clients/python/
COPY sandbox/pyproject.toml sandbox/
RUN uv sync --frozen --no-dev --no-install-workspace
COPY README.md ./
COPY protos protos
COPY service service
RUN uv sync --frozen --no-dev --no-editable

FROM python:3.11-slim
RUN useradd --uid 10001 --no-log-init --no-create-home --shell /usr/sbin/nologin broadcast
COPY --from=build /app/.venv /app/.venv
# Loopback, the default, would be the container alone.
ENV PATH=/app/.venv/bin:$PATH PYTHONUNBUFFERED=1 GRPC_HOST=0.0.0.0 HTTP_HOST=0.0.0.0
WORKDIR /app
USER 10001:10001
EXPOSE 50051 8080
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s CMD ["python", "-m", "service", "probe"]
ENTRYPOINT ["python", "-m", "service"]
CMD ["serve"]
