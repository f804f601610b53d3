// Tiles of 512 columns of a recording at levels of zoom, loaded as they come into view, and painted.

const N_COLUMNS = 512, LEAST_LEVEL = 3, MOST_KEPT = 240, AT_ONCE = 4, AGAIN_MS = 400;

export class Tiles {
  /** `changed` is called when something can be drawn anew, `failed` with the reason why not. */
  constructor({ clip, samples, bands, palette, changed, failed }) {
    Object.assign(this, { clip, samples, bands, changed, failed });
    this.colours = Uint8Array.from(palette.match(/../g), (hex) => parseInt(hex, 16));
    this.top = Math.max(LEAST_LEVEL, Math.ceil(Math.log2(samples / N_COLUMNS)));
    this.kept = new Map();
    this.n_loading = 0;
    this.dark = null; // of 255; from the first tile that is whole, until a person chooses
    this.isDarkChosen = false;
    this.peak = 0.01;
    this.axis = "mel";
    this.done = 1;
  }

  /** The level whose columns are about as wide as a pixel. */
  level(samplesPerPixel) {
    return Math.min(this.top, Math.max(LEAST_LEVEL, Math.floor(Math.log2(samplesPerPixel))));
  }

  /** Draw samples [first, last) of the recording on two canvases. */
  draw(wave, spectrum, first, last, ink) {
    const { width } = spectrum, perPixel = (last - first) / width, level = this.level(perPixel);
    const to = spectrum.getContext("2d"), line = wave.getContext("2d");
    to.fillStyle = "#000004";
    to.fillRect(0, 0, width, spectrum.height);
    line.clearRect(0, 0, wave.width, wave.height);
    line.fillStyle = ink;
    to.imageSmoothingEnabled = perPixel > 2 ** LEAST_LEVEL / 4;
    const across = N_COLUMNS * 2 ** level, ends = Math.min(last, this.samples);
    this.done = 1;
    for (let at = Math.max(0, Math.floor(first / across)); at * across < ends; at++) {
      const tile = this.get(level, at);
      if (tile.columns) this.done = Math.min(this.done, tile.done);
      this.drawTile(tile.columns ? tile : this.coarser(level, at), to, line, first, perPixel,
        at * across, Math.min((at + 1) * across, this.samples));
    }
  }

  /** What is known of a tile's place at a coarser level. */
  coarser(level, at) {
    for (let up = level + 1; up <= this.top; up++) {
      const tile = this.kept.get(`${this.axis} ${up} ${at >> (up - level)}`);
      if (tile?.columns) return tile;
    }
    return null;
  }

  drawTile(tile, to, line, first, perPixel, from, end) {
    if (!tile) return;
    const one = 2 ** tile.level, start = tile.at * N_COLUMNS * one;
    const x0 = (from - first) / perPixel, x1 = (end - first) / perPixel;
    const c0 = (from - start) / one, c1 = Math.min(tile.columns, (end - start) / one);
    to.drawImage(this.painted(tile), c0, 0, c1 - c0, this.bands, x0, 0, x1 - x0, to.canvas.height);
    const half = line.canvas.height / 2, scale = half / (32767 * this.peak), { low, high } = tile;
    const pixel0 = Math.max(0, Math.floor(x0)), pixel1 = Math.min(line.canvas.width, Math.ceil(x1));
    for (let x = pixel0; x < pixel1; x++) {
      const a = Math.max(Math.floor(c0), Math.floor((first + x * perPixel - start) / one));
      const b = Math.min(Math.ceil(c1), Math.max(a + 1, Math.ceil((first + (x + 1) * perPixel - start) / one)));
      let least = 32767, most = -32768;
      for (let c = a; c < b; c++) {
        if (low[c] < least) least = low[c];
        if (high[c] > most) most = high[c];
      }
      if (most >= least) line.fillRect(x, half - most * scale, 1, Math.max(1, (most - least) * scale));
    }
  }

  get(level, at) {
    const key = `${this.axis} ${level} ${at}`;
    let tile = this.kept.get(key);
    if (tile) this.kept.delete(key);
    else tile = { level, at, axis: this.axis, done: 0, columns: 0, isLoading: false, again: 0 };
    this.kept.set(key, tile);
    for (const old of this.kept.keys()) {
      if (this.kept.size <= MOST_KEPT) break;
      this.kept.delete(old);
    }
    if (tile.done < 1 && !tile.isLoading && this.n_loading < AT_ONCE && Date.now() >= tile.again) this.load(tile);
    return tile;
  }

  async load(tile) {
    tile.isLoading = true;
    this.n_loading += 1;
    try {
      const query = `axis=${tile.axis}&level=${tile.level}&tile=${tile.at}`;
      const answer = await fetch(`/clips/${this.clip}/columns?${query}`);
      if (!answer.ok) throw new Error(await answer.text());
      const bytes = await answer.arrayBuffer();
      const n = bytes.byteLength / (4 + this.bands);
      tile.low = new Int16Array(bytes, 0, n);
      tile.high = new Int16Array(bytes, 2 * n, n);
      tile.values = new Uint8Array(bytes, 4 * n);
      tile.columns = n;
      tile.done = Number(answer.headers.get("x-done"));
      tile.picture = null;
      for (let c = 0; c < n; c++) this.peak = Math.max(this.peak, -tile.low[c] / 32767, tile.high[c] / 32767);
      if (!this.isDarkChosen && tile.done > 0) this.dark = darkest(tile.values);
      this.isDarkChosen ||= tile.done === 1;
      this.failed("");
    } catch (error) {
      tile.again = Date.now() + 3000;
      this.failed(error instanceof TypeError ? "The server does not answer." : error.message);
    }
    tile.isLoading = false;
    this.n_loading -= 1;
    if (tile.columns && tile.done < 1) {
      tile.again = Date.now() + AGAIN_MS;
      setTimeout(this.changed, AGAIN_MS + 10);
    }
    this.changed();
  }

  /** A canvas with the tile's colours; `dark`: the value, of 255, that is darkest. */
  painted(tile) {
    if (tile.picture?.dark === this.dark) return tile.picture;
    const { bands, colours } = this, n = tile.columns, dark = Math.min(this.dark ?? 64, 250);
    const canvas = tile.picture ?? document.createElement("canvas");
    canvas.width = n;
    canvas.height = bands;
    const image = new ImageData(n, bands), pixels = new Uint32Array(image.data.buffer);
    const lookup = Uint32Array.from({ length: 256 }, (_, value) => {
      const c = 3 * Math.max(0, Math.round((255 * (value - dark)) / (255 - dark)));
      return (255 << 24) | (colours[c + 2] << 16) | (colours[c + 1] << 8) | colours[c];
    });
    for (let c = 0, at = 0; c < n; c++) {
      for (let band = bands - 1; band >= 0; band--, at++) pixels[band * n + c] = lookup[tile.values[at]];
    }
    canvas.getContext("2d").putImageData(image, 0, 0);
    canvas.dark = this.dark;
    tile.picture = canvas;
    return canvas;
  }
}

/** The value below which a quarter of what is not silent lies. */
function darkest(values) {
  const counts = new Uint32Array(256);
  for (const value of values) counts[value] += 1;
  const total = values.length - counts[0];
  let value = 1;
  for (let seen = 0; value < 230 && seen + counts[value] < total / 4; value++) seen += counts[value];
  return value;
}
