"""Write scikit-image's bundled, freely licensed photographs as square PNGs: pictures that may be published.

python scripts/samples.py FOLDER
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image
from skimage import data

NAMES = ("astronaut", "cat", "coffee", "rocket", "immunohistochemistry", "retina", "hubble_deep_field")

folder = Path(sys.argv[1])
folder.mkdir(parents=True, exist_ok=True)
for name in NAMES:
    image = Image.fromarray(np.asarray(getattr(data, name)())[..., :3])
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    image.crop((left, top, left + side, top + side)).resize((64, 64), Image.Resampling.LANCZOS).save(
        folder / f"{name}.png"
    )
