#!/bin/sh
# Measure speed on one large GPU: shares of the card's own convolution rate, pictures/s, fills/s, memory.
#
#   OUT=result sh scripts/gpu/speed.sh
set -eu
cd "$(dirname "$0")/../.."
: "${OUT:?name the folder for speed.json}"
mkdir -p "$OUT"
PYTHONPATH=. python3 -m manyfill benchmark --model base64 --json > "$OUT/speed.json"
