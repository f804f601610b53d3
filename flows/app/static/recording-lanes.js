// What lies beside the picture on the same axis of time: clock, classes, detections, remarks.

export const LANE = 30;

export function clock(s, digits = 1) {
  const unit = 10 ** digits, ticks = Math.round(s * unit), whole = Math.floor(ticks / unit);
  const rest = (ticks / unit - whole).toFixed(digits).slice(1);
  const two = (n) => String(n).padStart(2, "0"), h = Math.floor(whole / 3600), m = Math.floor(whole / 60) % 60;
  return (h ? `${h}:${two(m)}` : `${m}`) + `:${two(whole % 60)}${rest}`;
}

const STEPS = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400];

export const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

export function drawAxis(canvas, view, ratio, remarks, began) {
  const to = canvas.getContext("2d"), { width, height } = canvas, across = view.end - view.start;
  to.clearRect(0, 0, width, height);
  hatch(to, view, remarks, ratio);
  const step = STEPS.find((each) => (across / each) * 90 * ratio <= width) ?? 86400;
  const digits = step < 0.01 ? 3 : step < 0.1 ? 2 : step < 1 ? 1 : 0;
  to.font = `${12 * ratio}px system-ui, sans-serif`;
  to.textBaseline = "middle";
  for (let n = Math.ceil(view.start / step - 1e-9); n * step <= view.end; n++) {
    const x = ((n * step - view.start) / across) * width;
    const text = began && step >= 1 ? new Date(began + 1000 * n * step).toISOString().slice(11, 19) : clock(n * step, digits);
    to.fillStyle = style("--line");
    to.fillRect(Math.round(x), 0, ratio, height);
    to.fillStyle = style("--quiet");
    to.strokeStyle = style("--card");
    to.lineWidth = 4 * ratio;
    to.strokeText(text, x + 5 * ratio, height / 2);
    to.fillText(text, x + 5 * ratio, height / 2);
  }
}

function hatch(to, view, remarks, ratio) {
  const { width, height } = to.canvas, across = view.end - view.start;
  to.strokeStyle = style("--odd");
  to.lineWidth = 2 * ratio;
  for (const [start, end, , isPartial] of remarks) {
    if (!isPartial) continue;
    // What begins where the sound ends is shown at its end.
    const x0 = Math.min(((start - view.start) / across) * width, width - 6 * ratio);
    const x1 = Math.max(x0 + 6 * ratio, (((end ?? start) - view.start) / across) * width);
    if (x1 < 0 || start > view.end + 0.01) continue;
    to.save();
    to.beginPath();
    to.rect(x0, 0, x1 - x0, height);
    to.clip();
    to.beginPath();
    for (let x = Math.max(0, x0) - height; x < Math.min(width, x1) + height; x += 7 * ratio) {
      to.moveTo(x, height);
      to.lineTo(x + height, 0);
    }
    to.stroke();
    to.restore();
  }
}

/** The whole recording: where the classes that are shown were detected, and what is in view. */
export function drawMap(canvas, duration, view, ratio, lanes, remarks) {
  const to = canvas.getContext("2d"), { width, height } = canvas;
  to.clearRect(0, 0, width, height);
  hatch(to, { start: 0, end: duration }, remarks, ratio);
  to.fillStyle = style("--bar");
  const each = Math.max(ratio, (height - 4 * ratio) / Math.max(1, lanes.length));
  lanes.forEach(({ heard }, at) => {
    let last = -1;
    for (const [, start, end] of heard) {
      const x0 = Math.floor((start / duration) * width), x1 = Math.max(x0 + ratio, (end / duration) * width);
      if (x1 <= last) continue;
      to.fillRect(x0, 2 * ratio + at * each, x1 - x0, Math.max(ratio, each - ratio));
      last = x1;
    }
  });
  const x0 = (view.start / duration) * width, x1 = Math.max(x0 + 4 * ratio, (view.end / duration) * width);
  to.strokeStyle = style("--ink");
  to.lineWidth = 2 * ratio;
  to.strokeRect(x0 + ratio, ratio, x1 - x0 - 2 * ratio, height - 2 * ratio);
}

export function drawLanes(canvas, view, ratio, lanes, scores, chosen) {
  const to = canvas.getContext("2d"), { width } = canvas, across = view.end - view.start;
  to.clearRect(0, 0, width, canvas.height);
  const place = (s) => ((s - view.start) / across) * width, tall = LANE * ratio;
  lanes.forEach((lane, at) => {
    const y = at * tall, foot = y + tall - ratio;
    to.fillStyle = style("--line");
    to.fillRect(0, foot, width, ratio);
    const row = scores?.rows.get(lane.mid);
    if (row) {
      to.fillStyle = style("--quiet");
      to.globalAlpha = 0.38;
      to.beginPath();
      to.moveTo(place(scores.start), foot);
      const one = (scores.end - scores.start) / row.length;
      row.forEach((value, n) => {
        const top = foot - (value / 255) * (tall - 4 * ratio);
        to.lineTo(place(scores.start + n * one), top);
        to.lineTo(place(scores.start + (n + 1) * one), top);
      });
      to.lineTo(place(scores.end), foot);
      to.fill();
      to.globalAlpha = 1;
    }
    for (const heard of lane.heard) {
      if (heard[2] < view.start || heard[1] > view.end) continue;
      const x0 = place(heard[1]), x1 = Math.max(x0 + 3 * ratio, place(heard[2]));
      to.fillStyle = style(heard === chosen ? "--accent" : "--bar");
      const high = (heard === chosen ? 11 : 7) * ratio;
      to.fillRect(x0, foot - high, x1 - x0, high);
    }
  });
}

const NICE_HZ = [50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000, 100000];
const mel = (hz) => Math.log1p(hz / 700);

export function drawFrequencies(canvas, ratio, rate, axis) {
  const to = canvas.getContext("2d"), { height } = canvas, highest = rate / 2;
  const up = axis === "mel" ? (hz) => mel(hz) / mel(highest) : (hz) => hz / highest;
  let marks = NICE_HZ;
  if (axis === "linear") {
    const step = [100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000].find((each) => highest / each <= 8) ?? 50000;
    marks = Array.from({ length: Math.floor(highest / step) }, (_, n) => (n + 1) * step);
  }
  to.font = `${12 * ratio}px system-ui, sans-serif`;
  to.textBaseline = "middle";
  to.lineWidth = 3 * ratio;
  to.strokeStyle = "rgba(0, 0, 4, 0.75)";
  to.fillStyle = "#ffffff";
  let last = height;
  for (const hz of marks) {
    const y = height * (1 - up(hz));
    if (hz >= highest || y > last - 16 * ratio || y < 8 * ratio) continue;
    const text = hz >= 1000 ? `${hz / 1000} kHz` : `${hz} Hz`;
    to.fillRect(0, y, 5 * ratio, ratio);
    to.strokeText(text, 8 * ratio, y);
    to.fillText(text, 8 * ratio, y);
    last = y;
  }
}
