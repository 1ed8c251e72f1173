// What a pointer does to the mask. A tool has down, move and up, with points in pixels of the picture.

import { COLOUR } from "./mask.js";

class Tool {
  constructor(mask, viewport) {
    Object.assign(this, { mask, viewport });
  }

  down() {
    this.mask().begin();
  }

  up() {
    this.mask().commit();
  }

  cancel() {
    this.mask().revert();
  }

  /** Draw on the mask and on what is in sight of it. */
  paint(box, draw, erase) {
    const both = (context) => {
      context.globalCompositeOperation = erase ? "destination-out" : "source-over";
      context.fillStyle = context.strokeStyle = COLOUR;
      draw(context);
      context.globalCompositeOperation = "source-over";
    };
    this.mask().paint(box, both);
    this.viewport.echo(both);
  }
}

/** Paints along the way; the eraser is a brush that takes away. */
export class Brush extends Tool {
  constructor(mask, viewport, size, erases = false) {
    super(mask, viewport);
    Object.assign(this, { size, erases });
  }

  down(point, erase) {
    super.down();
    this.erase = this.erases !== erase;
    this.last = point;
    this.move(point);
  }

  move(point) {
    const [from, radius] = [this.last, this.size() / 2];
    const box = {
      left: Math.min(from.x, point.x) - radius - 1,
      top: Math.min(from.y, point.y) - radius - 1,
      right: Math.max(from.x, point.x) + radius + 1,
      bottom: Math.max(from.y, point.y) + radius + 1,
    };
    this.paint(
      box,
      (context) => {
        context.beginPath();
        // Browsers need not draw a line of no length.
        if (from === point) {
          context.arc(point.x, point.y, radius, 0, 2 * Math.PI);
          return context.fill();
        }
        context.lineWidth = 2 * radius;
        context.lineCap = "round";
        context.moveTo(from.x, from.y);
        context.lineTo(point.x, point.y);
        context.stroke();
      },
      this.erase,
    );
    this.last = point;
  }
}

/** Collects an outline, shown meanwhile, and fills it in the end. */
class Shape extends Tool {
  down(point, erase) {
    super.down();
    Object.assign(this, { points: [point], erase });
  }

  move(point) {
    this.points.push(point);
    this.outlined(this.path());
  }

  up() {
    const path = this.path();
    const [xs, ys] = [this.points.map(({ x }) => x), this.points.map(({ y }) => y)];
    const least = (values) => values.reduce((a, b) => Math.min(a, b));
    const most = (values) => values.reduce((a, b) => Math.max(a, b));
    const box = { left: least(xs), top: least(ys), right: most(xs), bottom: most(ys) };
    this.outlined(null);
    this.paint(box, (context) => context.fill(path), this.erase);
    super.up();
  }

  cancel() {
    this.outlined(null);
    super.cancel();
  }

  outlined(path) {
    this.viewport.outline = path;
    this.viewport.draw("guide");
  }
}

export class Rectangle extends Shape {
  path() {
    const [from, to] = [this.points[0], this.points.at(-1)];
    // Whole pixels, so that the edge is what it looks like.
    const [left, right] = [Math.floor(Math.min(from.x, to.x)), Math.ceil(Math.max(from.x, to.x))];
    const [top, bottom] = [Math.floor(Math.min(from.y, to.y)), Math.ceil(Math.max(from.y, to.y))];
    const path = new Path2D();
    path.rect(left, top, right - left, bottom - top);
    return path;
  }
}

export class Lasso extends Shape {
  path() {
    const path = new Path2D();
    for (const { x, y } of this.points) path.lineTo(x, y);
    path.closePath();
    return path;
  }
}
