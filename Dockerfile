# The c360 command line with the example apps. An app of your own: FROM this image, COPY it to /app, set C360_APP.
FROM python:3.13-slim AS build
WORKDIR /src
COPY requirements.lock pyproject.toml README.md LICENSE ./
COPY c360 c360
COPY schemas schemas
# The lock as constraints: exactly the tested versions of what the package needs, without the tools of its developers.
RUN python -m venv /opt/c360 \
 && /opt/c360/bin/pip install --no-cache-dir --constraint requirements.lock ".[protobuf]"

FROM python:3.13-slim
RUN useradd --system --uid 10001 c360 \
 && mkdir -p /var/lib/c360 && chown c360 /var/lib/c360
COPY --from=build /opt/c360 /opt/c360
WORKDIR /app
COPY examples examples
ENV PATH=/opt/c360/bin:$PATH PYTHONPATH=/app PYTHONUNBUFFERED=1 C360_STATE_DIR=/var/lib/c360
USER c360
VOLUME /var/lib/c360
ENTRYPOINT ["c360"]
CMD ["--help"]
