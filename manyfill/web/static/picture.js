// A decoded picture with smaller copies of itself, so that drawing it costs what the window holds, not what it holds.

export class Picture {
  /** Decode a file. Its values are taken as they are, without its colour profile, as the server takes them. */
  static async open(blob, name) {
    let bitmap;
    try {
      bitmap = await createImageBitmap(blob, { colorSpaceConversion: "none", imageOrientation: "from-image" });
    } catch {
      throw new Error(`${name}: not a picture that this browser can show. Save it as PNG, JPEG or WebP.`);
    }
    const copies = [bitmap];
    for (let last = bitmap; Math.max(last.width, last.height) > 700; copies.push(last)) {
      const size = { resizeWidth: Math.ceil(last.width / 2), resizeHeight: Math.ceil(last.height / 2) };
      last = await createImageBitmap(last, { ...size, resizeQuality: "medium" });
    }
    return new Picture(blob, name, copies);
  }

  constructor(blob, name, copies) {
    Object.assign(this, { blob, name, copies, width: copies[0].width, height: copies[0].height });
  }

  get stem() {
    return this.name.replace(/\.[^.]*$/, "") || "picture";
  }

  /** Draw the part (left, top, width, height) of the picture to a rectangle of a canvas. */
  draw(context, part, x, y, width, height) {
    const scale = width / part.width;
    const level = Math.min(Math.max(0, Math.floor(-Math.log2(scale))), this.copies.length - 1);
    const copy = this.copies[level];
    const [across, down] = [copy.width / this.width, copy.height / this.height];
    context.imageSmoothingEnabled = scale < 3;
    context.drawImage(copy, part.left * across, part.top * down, part.width * across, part.height * down, x, y, width, height);
  }
}
