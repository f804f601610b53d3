// Plays a recording of any length: the server sends spans as WAV, and these follow each other to the
// sample on the audio clock. The audio context has the rate of what is sent, so that a browser does
// not resample each span by itself, which would be heard where one ends.

const FIRST_S = 4, LONGEST_S = 30, AHEAD_S = 12, SOON_S = 0.05;
const wait = (s) => new Promise((done) => { setTimeout(done, 1000 * s); });

export class Player {
  /** `rates`: of what is sent as it is, and slowed; `changed` is called when it starts, waits or ends. */
  constructor({ clip, duration, rates, slowed, changed, failed }) {
    Object.assign(this, { clip, duration, rates, slowed, changed, failed });
    this.isSlow = false;
    this.gainDb = 0;
    this.place = 0;
    this.turn = 0;
    this.state = "paused";
    this.sounding = [];
  }

  /** Seconds of the recording that are heard now, or would be next. */
  get time() {
    if (this.state === "paused" || !this.sounding.length) return this.place;
    const now = this.context.currentTime - (this.context.outputLatency || 0);
    const piece = this.sounding.findLast((each) => each.when <= now);
    if (!piece) return this.place;
    return Math.min(piece.end, piece.start + (now - piece.when) / this.factor);
  }

  get factor() { return this.isSlow ? this.slowed : 1; }

  louder(db) {
    this.gainDb = db;
    if (this.gain) this.gain.gain.value = 10 ** (db / 20);
  }

  /** Play slowed, or no longer; what plays goes on from where it is. */
  slow(isSlow) {
    const from = this.time, until = this.until, isOn = this.state !== "paused";
    this.pause();
    this.isSlow = isSlow;
    if (isOn) this.play(from, until);
  }

  pause() {
    this.place = this.time;
    this.stop();
    this.say("paused");
  }

  stop() {
    this.turn += 1;
    for (const { source } of this.sounding) source.stop();
    this.sounding = [];
  }

  async play(from, until = this.duration) {
    this.stop();
    const turn = this.turn;
    this.place = from;
    this.until = until;
    this.say("waiting");
    try {
      // Safari suspends and interrupts contexts when it likes; each start is a person's doing.
      const context = this.ready();
      await context.resume();
      let next = 0, length = FIRST_S;
      for (let start = from; start < until && turn === this.turn;) {
        const end = Math.min(until, start + length / this.factor);
        const buffer = await this.piece(start, end);
        if (turn !== this.turn) return;
        const soon = context.currentTime + SOON_S;
        next = Math.max(next, soon);
        const source = new AudioBufferSourceNode(context, { buffer });
        source.connect(this.gain);
        source.start(next);
        this.sounding = this.sounding.filter((each) => each.when + each.lasts > context.currentTime - 1);
        this.sounding.push({ source, start, end, when: next, lasts: buffer.duration });
        this.say("playing");
        next += buffer.duration;
        start = end;
        length = Math.min(LONGEST_S, 3 * length);
        while (turn === this.turn && next - context.currentTime > (start < until ? AHEAD_S : 0)) {
          await wait(Math.min(0.25, next - context.currentTime));
        }
        if (turn === this.turn && next < context.currentTime) this.say("waiting");
      }
      if (turn !== this.turn) return;
      this.stop();
      this.place = until;
      this.say("paused");
    } catch (error) {
      if (turn !== this.turn) return;
      this.stop();
      this.say("paused");
      this.failed(error.message);
    }
  }

  say(state) {
    if (state === this.state) return;
    this.state = state;
    this.changed();
  }

  ready() {
    const rate = this.rates[this.isSlow ? 1 : 0];
    if (this.context && this.context.wanted !== rate) {
      this.context.close();
      this.context = null;
    }
    if (!this.context || this.context.state === "closed") {
      try {
        this.context = new AudioContext({ sampleRate: rate });
      } catch {
        this.context = new AudioContext();
      }
      this.context.wanted = rate;
      this.gain = new GainNode(this.context, { gain: 10 ** (this.gainDb / 20) });
      this.gain.connect(this.context.destination);
    }
    return this.context;
  }

  async piece(start, end) {
    const slowed = this.isSlow ? "&slowed=true" : "";
    const path = `/clips/${this.clip}/sound.wav?start_s=${start}&end_s=${end}${slowed}`;
    const answer = await fetch(path).catch(() => null);
    if (!answer) throw new Error("The server does not answer: is `audioset app` still running?");
    if (!answer.ok) throw new Error(await answer.text());
    return this.context.decodeAudioData(await answer.arrayBuffer());
  }
}
