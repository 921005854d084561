// A picture file as the server takes it: redrawn where it is large, or of a kind that only the browser may read.

import { ServerError } from "./server.js";

const LIMIT_BYTES = 10e6;
const REDRAW_ABOVE_BYTES = 4e6;
const MOST_PX = 2160;
const SERVER_READS = /^image\/(jpeg|png|webp|avif|gif|bmp|tiff)$/;
const BEHIND = "#808080"; // transparent parts, as on the server

/** The file itself, or a smaller copy of it as JPEG. */
export async function fitting(file) {
  const bitmap = await createImageBitmap(file, { imageOrientation: "from-image" }).catch(() => null);
  if (!bitmap && file.size > LIMIT_BYTES) throw new ServerError(413, "too_large", "too large", null);
  if (!bitmap) return file; // the server may know it, or says what it is
  const fits = Math.max(bitmap.width, bitmap.height) <= MOST_PX && file.size <= REDRAW_ABOVE_BYTES;
  try {
    return fits && SERVER_READS.test(file.type) ? file : await redrawn(bitmap);
  } finally {
    bitmap.close();
  }
}

function redrawn(bitmap) {
  const scale = Math.min(1, MOST_PX / Math.max(bitmap.width, bitmap.height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.round(bitmap.width * scale);
  canvas.height = Math.round(bitmap.height * scale);
  const pen = canvas.getContext("2d");
  pen.fillStyle = BEHIND;
  pen.fillRect(0, 0, canvas.width, canvas.height);
  pen.imageSmoothingQuality = "high";
  pen.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  return new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", 0.93));
}

/** A square canvas that shows `box` (left, top, right, bottom as shares) of an image and a little around it. */
export function closeUp(image, [left, top, right, bottom], pixels = 160) {
  const canvas = Object.assign(document.createElement("canvas"), { width: pixels, height: pixels });
  const { naturalWidth: width, naturalHeight: height } = image;
  const side = 1.5 * Math.max((right - left) * width, (bottom - top) * height);
  const x = ((left + right) / 2) * width - side / 2;
  const y = ((top + bottom) / 2) * height - side / 2;
  canvas.getContext("2d").drawImage(image, x, y, side, side, 0, 0, pixels, pixels);
  return canvas;
}
