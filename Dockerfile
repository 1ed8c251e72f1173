# docker build -t manyfill .
# docker run --rm -p 127.0.0.1:7860:7860 -e MANYFILL_TOKEN=... --read-only --tmpfs /tmp manyfill
FROM python:3.13-slim AS build
COPY . /source
RUN python -m venv /opt/manyfill \
 && /opt/manyfill/bin/pip install --no-cache-dir --extra-index-url https://download.pytorch.org/whl/cpu \
    --constraint /source/constraints.txt "/source[web,demo]"

FROM python:3.13-slim
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin manyfill
COPY --from=build /opt/manyfill /opt/manyfill
USER 10001
ENV PATH=/opt/manyfill/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
EXPOSE 7860
HEALTHCHECK CMD python -c "import urllib.request as u; u.urlopen('http://127.0.0.1:7860/health', timeout=5)"
# Beyond loopback of the container, or nobody could reach it: set MANYFILL_TOKEN, or publish the port on 127.0.0.1 alone.
ENTRYPOINT ["manyfill", "serve", "--host", "0.0.0.0", "--port", "7860"]
