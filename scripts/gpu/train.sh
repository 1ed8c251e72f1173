#!/bin/sh
# Train the default model on one large GPU and bring the model directory back.
#
#   PACK=pack.zip OUT=result MINUTES=25 sh scripts/gpu/train.sh
#
# PACK comes from scripts/gpu/pack.py. RUN (default /tmp/manyfill-run) holds the run: the same call again goes on where it
# stopped, so that a limit on the length of one call (LIMIT_SECONDS, default 1500) does no harm. The pack is unzipped to
# PICTURES (default /tmp/manyfill-pictures), once. Needs the packages of pyproject.toml.
set -eu
cd "$(dirname "$0")/../.."
: "${PACK:?name the pack of pictures}" "${OUT:?name the folder for the model}"
RUN=${RUN:-/tmp/manyfill-run}
PICTURES=${PICTURES:-/tmp/manyfill-pictures}
[ -d "$PICTURES" ] || python3 -m zipfile -e "$PACK" "$PICTURES"
# A time limit ends the run as Ctrl-C does: it saves, and the model so far comes back.
timeout --signal=INT "${LIMIT_SECONDS:-1500}" python3 -m manyfill train "$PICTURES/train" --val "$PICTURES/val" \
    --config configs/gpu64.toml --minutes "${MINUTES:-25}" --out "$RUN" || [ $? -eq 124 ]
mkdir -p "$OUT"
cp "$RUN"/model/* "$RUN"/log.jsonl "$OUT"/
