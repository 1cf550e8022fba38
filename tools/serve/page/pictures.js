// Waveform, mel spectrogram, alignment and gate of all pieces, side by side on one axis of time.

import { fromBase64 } from "./player.js";

const LINE = "#2563eb";
const FLAWED = "#b91c1c";

function clear(id) {
  const canvas = document.getElementById(id);
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, canvas.width, canvas.height);
  return [canvas, context];
}

export function drawWaveform(samples) {
  const [canvas, context] = clear("waveform");
  context.fillStyle = LINE;
  const middle = canvas.height / 2;
  for (let x = 0; x < canvas.width; x++) {
    const begin = Math.floor((x * samples.length) / canvas.width);
    const end = Math.max(begin + 1, Math.floor(((x + 1) * samples.length) / canvas.width));
    let low = 0;
    let high = 0;
    for (let i = begin; i < end && i < samples.length; i++) {
      low = Math.min(low, samples[i]);
      high = Math.max(high, samples[i]);
    }
    context.fillRect(x, middle - high * middle, 1, Math.max(1, (high - low) * middle));
  }
}

/** From dark blue over red to yellow. */
function color(level) {
  const x = level / 255;
  return [255 * Math.min(1, 1.6 * x), 255 * Math.max(0, 1.6 * x - 0.6), 255 * Math.max(0.15, 0.5 - Math.abs(x - 0.35))];
}

function image({ rows, columns, data }) {
  const levels = fromBase64(data);
  const picture = new ImageData(columns, rows);
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      const place = 4 * ((rows - 1 - row) * columns + column); // the first row at the bottom
      picture.data.set([...color(levels[row * columns + column]), 255], place);
    }
  }
  const canvas = new OffscreenCanvas(columns, rows);
  canvas.getContext("2d").putImageData(picture, 0, 0);
  return canvas;
}

/** Call draw(context, piece, x, width, height) for each piece, as wide as it is long. */
function sideBySide(id, pieces, draw) {
  const [canvas, context] = clear(id);
  const frames = pieces.reduce((sum, piece) => sum + piece.frames, 0);
  let x = 0;
  for (const piece of pieces) {
    const width = (piece.frames / frames) * canvas.width;
    draw(context, piece, x, width, canvas.height);
    x += width;
    context.fillStyle = "#9ca3af";
    context.fillRect(x - 1, 0, 1, canvas.height);
  }
}

export function drawPieces(pieces) {
  const stretched = (name) => (context, piece, x, width, height) => {
    context.imageSmoothingEnabled = false;
    context.drawImage(image(piece[name]), x, 0, width, height);
    if (piece.flaw) {
      context.strokeStyle = FLAWED;
      context.lineWidth = 6;
      context.strokeRect(x, 0, width, height);
    }
  };
  sideBySide("mel", pieces, stretched("mel"));
  sideBySide("alignment", pieces, stretched("alignment"));
  sideBySide("gate", pieces, (context, piece, x, width, height) => {
    context.strokeStyle = LINE;
    context.lineWidth = 2;
    context.beginPath();
    piece.gate.forEach((probability, step) => {
      context.lineTo(x + ((step + 0.5) / piece.gate.length) * width, height - 2 - probability * (height - 4));
    });
    context.stroke();
  });
}
