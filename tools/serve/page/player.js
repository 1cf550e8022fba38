// Sound that is played while it is made, and a wav of it.

/** Plays chunks of samples one behind the other. Float32 samples in -1..1, rate in samples a second. */
export class Player {
  constructor(rate) {
    this.context = new AudioContext({ sampleRate: rate });
    this.chunks = [];
    this.length = 0;
    this.end = 0; // of what is scheduled, in the context's seconds
  }

  add(samples) {
    if (!samples.length) return;
    this.chunks.push(samples);
    this.length += samples.length;
    const buffer = this.context.createBuffer(1, samples.length, this.context.sampleRate);
    buffer.copyToChannel(samples, 0);
    const source = this.context.createBufferSource();
    source.buffer = buffer;
    source.connect(this.context.destination);
    this.end = Math.max(this.end, this.context.currentTime + 0.02); // late: go on from now
    source.start(this.end);
    this.end += buffer.duration;
  }

  /** Wait until all has been heard; false if stop() ended it before. */
  async finished() {
    while (this.context.state !== "closed" && this.context.currentTime < this.end) {
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    const whole = this.context.state !== "closed";
    this.stop();
    return whole;
  }

  stop() {
    if (this.context.state !== "closed") this.context.close();
  }

  get seconds() {
    return this.length / this.context.sampleRate;
  }

  samples() {
    const all = new Float32Array(this.length);
    let place = 0;
    for (const chunk of this.chunks) {
      all.set(chunk, place);
      place += chunk.length;
    }
    return all;
  }
}

/** 16-bit little-endian samples in base64 -> Float32Array. */
export function decode(base64) {
  const bytes = fromBase64(base64);
  const view = new DataView(bytes.buffer);
  return Float32Array.from({ length: bytes.length / 2 }, (_, i) => view.getInt16(2 * i, true) / 32768);
}

export function fromBase64(text) {
  return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
}

/** A 16-bit mono wav. */
export function wav(samples, rate) {
  const size = 2 * samples.length;
  const view = new DataView(new ArrayBuffer(44 + size));
  const write = (place, text) => [...text].forEach((letter, i) => view.setUint8(place + i, letter.charCodeAt(0)));
  write(0, "RIFF");
  view.setUint32(4, 36 + size, true);
  write(8, "WAVEfmt ");
  view.setUint32(16, 16, true);
  view.setUint16(20, 1, true);
  view.setUint16(22, 1, true);
  view.setUint32(24, rate, true);
  view.setUint32(28, 2 * rate, true);
  view.setUint16(32, 2, true);
  view.setUint16(34, 16, true);
  write(36, "data");
  view.setUint32(40, size, true);
  samples.forEach((sample, i) => view.setInt16(44 + 2 * i, Math.round(sample * 32768), true));
  return new Blob([view.buffer], { type: "audio/wav" });
}
