"use strict";
(() => {
  const $ = (id) => document.getElementById(id);

  // ---- light and dark: what the system says, until the button says otherwise
  const root = document.documentElement, button = $("theme");
  const system = window.matchMedia("(prefers-color-scheme: dark)");
  const dark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
  const label = () => { button.textContent = dark() ? "Light colours" : "Dark colours"; };
  button.hidden = false;
  button.addEventListener("click", () => { root.dataset.theme = dark() ? "light" : "dark"; label(); });
  system.addEventListener("change", label);
  label();

  // ---- the slider: recorded scores, replayed as report/replay.py does
  const data = JSON.parse($("data").textContent);
  const slider = $("slider");
  if (!data.replay || !slider) return;
  const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer;
  const floats = (name) => new Float32Array(bytes(data.replay[name]));
  const whole = (name) => new Int32Array(bytes(data.replay[name]));
  const score = floats("score"), share = floats("share"), site = whole("site"), sample = whole("sample");
  const light = floats("light"), full = floats("full"), { units, macs } = data.replay;

  function at(factor) {
    const limits = units.map((u) => Math.fround(Math.min(factor * u, data.largest)));
    const easy = new Float64Array(full.length);
    let hard = 0, work = 0, all = 0;
    for (let i = 0; i < score.length; i++) {
      all += macs[site[i]];
      if (score[i] < limits[site[i]]) easy[sample[i]] += share[i];
      else { hard++; work += macs[site[i]]; }
    }
    const far = easy.map((e, i) => Math.sqrt(Math.max(full[i] ** 2 + e * (light[i] ** 2 - full[i] ** 2), 0)));
    const mean = far.reduce((a, b) => a + b, 0) / far.length;
    far.sort();
    const place = 0.99 * (far.length - 1), low = Math.floor(place);
    const p99 = far[low] + (place - low) * ((far[low + 1] ?? far[low]) - far[low]);
    return { hard, activity: work / Math.max(all, 1), mean, p99 };
  }

  const digits = (v) => (v === 0 ? "0" : String(Number(v.toPrecision(3))));
  const percent = (v) => `${digits(100 * v)} %`;
  const [x0, y0, x1, y1] = $("scale").dataset.box.split(" ").map(Number), high = Number($("scale").dataset.high);

  function show(name, value, words) {
    $(name).textContent = words;
    $(name).dataset.value = value;
  }

  function named(factor) {
    if (factor === 0) return "0";
    if (factor >= data.unjudged) return "above all scores";
    const chosen = factor === data.chosen;
    if (units.length > 1 && data.chosen === 1) return chosen ? "as chosen" : `${digits(factor)} x the chosen`;
    return digits(factor) + (chosen ? ", as chosen" : "");
  }

  function move() {
    const factor = data.factors[Number(slider.value)], seen = at(factor);
    const words = named(factor);
    show("tolerance", factor, words);
    show("activity", seen.activity, percent(seen.activity));
    show("hard", seen.hard, `${seen.hard.toLocaleString("en")} of ${score.length.toLocaleString("en")}`);
    show("mean", seen.mean, percent(seen.mean));
    show("p99", seen.p99, percent(seen.p99));
    slider.setAttribute("aria-valuetext", `tolerance ${words}: ${$("hard").textContent} rows full, mean ${percent(seen.mean)}`);
    const x = x1 + (x0 - x1) * Math.sqrt(seen.activity), y = (v) => y1 + (y0 - y1) * (v / high);
    $("marker").setAttribute("x1", x);
    $("marker").setAttribute("x2", x);
    for (const [name, value] of [["mark-mean", seen.mean], ["mark-p99", seen.p99]]) {
      $(name).setAttribute("cx", x);
      $(name).setAttribute("cy", y(value));
    }
  }

  $("back").hidden = data.chosen === null;
  slider.addEventListener("input", move);
  $("back").addEventListener("click", () => { slider.value = data.start; move(); });
  move();
})();
