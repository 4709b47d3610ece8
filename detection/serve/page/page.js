"use strict";
// The page asks for the newest frame when it has drawn the last one: a slow viewer sees fewer frames.
const $ = (id) => document.getElementById(id);
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const STAGES = ["decode", "queue", "upload", "derain", "letterbox", "detect", "compare"];
const COLORS = { found: "rgb(46 230 166)", lost: "rgb(250 170 255)", kept: "#ffffff" };
const KEPT_S = 600, RECENT_S = 60;

let token = sessionStorage.getItem("token") || "";
let source = null; // the one that is looked at; null: a picture of the viewer's own
let newest = 0, paused = false, shown = null, mean = {}, seconds = [], threshold = null, summary = null;
let asking = new AbortController();

async function ask(path, options = {}) {
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  const response = await fetch(path, { ...options, headers });
  if (response.status === 401) {
    $("token").hidden = false;
    $("main").hidden = true;
    say(token ? "This token is not the right one." : "This server needs a token.", true);
    await new Promise((resolve) => $("token").addEventListener("submit", resolve, { once: true }));
    return ask(path, options);
  }
  $("token").hidden = true;
  $("main").hidden = false;
  return response;
}
$("token").addEventListener("submit", (event) => {
  event.preventDefault();
  token = $("token-text").value.trim();
  sessionStorage.setItem("token", token);
});
function say(text, bad = false) {
  if ($("status").textContent !== text) $("status").textContent = text;
  $("status").classList.toggle("bad", bad);
}

// --- the picture --------------------------------------------------------------------------------
async function take(response, name) {
  const form = await response.formData();
  const record = JSON.parse(await form.get("record").text());
  record.name = name || record.name;
  const [rainy, derained] = await Promise.all(["rainy", "derained"].map((k) => createImageBitmap(form.get(k))));
  for (const old of shown ? [shown.rainy, shown.derained] : []) old.close();
  shown = { record, rainy, derained };
  $("pair").classList.remove("empty");
  $("pair").style.setProperty("--ratio", rainy.width / rainy.height);
  draw();
  tell(record);
}
function draw() {
  if (!shown) return;
  const on = (layer) => document.querySelector(`[data-layer=${layer}]`).checked;
  const { record } = shown;
  for (const [name, boxes] of [["rainy", record.rainy_boxes || []], ["derained", record.boxes]]) {
    const canvas = $(name), picture = shown[name], pen = canvas.getContext("2d");
    if (canvas.width !== picture.width || canvas.height !== picture.height)
      [canvas.width, canvas.height] = [picture.width, picture.height];
    pen.drawImage(picture, 0, 0);
    const scale = picture.width / record.width, unit = picture.width / ($("pair").clientWidth || picture.width);
    for (const box of boxes) {
      const kind = box.found ? "found" : box.lost ? "lost" : "kept";
      if (on(kind)) mark(pen, box, kind, scale, unit);
    }
  }
}
function mark(pen, box, kind, scale, unit) {
  const [left, top, right, bottom] = box.xyxy.map((side) => side * scale);
  const frame = [left, top, right - left, bottom - top];
  pen.setLineDash([]);
  pen.lineWidth = (kind === "found" ? 5 : 4) * unit;
  pen.strokeStyle = "rgb(0 0 0 / .45)";
  pen.strokeRect(...frame);
  pen.setLineDash(kind === "lost" ? [7 * unit, 4 * unit] : []);
  pen.lineWidth = (kind === "found" ? 3 : 2) * unit;
  pen.strokeStyle = COLORS[kind];
  pen.strokeRect(...frame);
  const text = `${box.class} ${box.score.toFixed(2)}`;
  pen.font = `600 ${11 * unit}px sans-serif`;
  const width = pen.measureText(text).width + 6 * unit;
  if (kind === "kept" && right - left < width) return;
  const base = Math.max(top, 15 * unit);
  pen.fillStyle = COLORS[kind];
  pen.fillRect(left - unit, base - 15 * unit, width, 15 * unit);
  pen.fillStyle = "#0a1014";
  pen.fillText(text, left + 2 * unit, base - 4 * unit);
}
function tell(record) {
  const found = record.boxes.filter((box) => box.found).length, compared = Boolean(record.rainy_boxes);
  const lost = (record.rainy_boxes || []).filter((box) => box.lost).length;
  $("count-found").textContent = compared ? found : "–";
  $("count-lost").textContent = compared ? lost : "–";
  $("count-kept").textContent = compared ? record.boxes.length - found : record.boxes.length;
  const time = record.captured ? new Date(record.captured * 1e3).toLocaleTimeString()
    : record.time_s !== undefined ? `${record.time_s.toFixed(1)} s` : record.name;
  const gate = record.meter === undefined ? [] : [record.derained ? "derained" : "let through by the gate"];
  $("caption").textContent = [time, `${record.width} × ${record.height} pixels`, `${record.boxes.length} box${record.boxes.length === 1 ? "" : "es"}`, ...gate].filter(Boolean).join(" · ");
  $("rainy").setAttribute("aria-label", `The rainy picture, ${lost} boxes lost`);
  $("derained").setAttribute("aria-label", `The derained picture, ${found} boxes found`);
  for (const stage of STAGES) {
    const ms = record.stage_ms[stage];
    if (ms !== undefined) mean[stage] = mean[stage] === undefined ? ms : 0.8 * mean[stage] + 0.2 * ms;
  }
  showStages();
  showTiles(source ? summary : null);
}
function showStages() {
  const most = Math.max(...Object.values(mean), 1), list = $("stages");
  for (const stage of STAGES.filter((name) => mean[name] !== undefined)) {
    if (!$(`ms-${stage}`)) {
      const [name, bar, fill, value] = ["dt", "div", "i", "dd"].map((tag) => document.createElement(tag));
      name.textContent = { queue: "wait", compare: "detect rainy" }[stage] || stage;
      bar.className = `meter ${stage}`;
      value.id = `ms-${stage}`;
      bar.append(fill);
      list.append(name, bar, value);
    }
    const value = $(`ms-${stage}`);
    value.textContent = mean[stage].toFixed(1);
    value.previousSibling.firstChild.style.width = `${(100 * mean[stage]) / most}%`;
  }
}
function showTiles(summary) {
  const recent = seconds.slice(-RECENT_S), record = shown && shown.record;
  const frames = recent.reduce((sum, one) => sum + one.frames, 0);
  const average = (key) => recent.reduce((sum, one) => sum + (one[key] || 0) * one.frames, 0) / Math.max(frames, 1);
  const tiles = [];
  if (summary) tiles.push(["frames a second", summary.frames_per_s.toFixed(1)]);
  if (record) tiles.push(["ms a frame, derain and detect", (record.derain_ms + record.detect_ms).toFixed(0)]);
  if (summary && frames && recent.some((one) => one.found !== undefined)) {
    tiles.push(["found a frame, last minute", average("found").toFixed(2)], ["lost a frame, last minute", average("lost").toFixed(2)]);
  }
  if (record && record.meter) {
    tiles.push(["mm/h of rain", record.meter.rate_mm_h.toFixed(1)], ["what the gate does", record.derained ? "derain" : "pass"]);
  }
  const list = $("tiles");
  while (list.children.length > tiles.length) list.lastChild.remove();
  tiles.forEach(([name, value], i) => {
    const tile = list.children[i] || list.appendChild(document.createElement("div"));
    if (!tile.firstChild) { tile.className = "tile"; tile.append(document.createElement("dt"), document.createElement("dd")); }
    tile.firstChild.textContent = name;
    tile.lastChild.textContent = value;
  });
}

// --- over time ----------------------------------------------------------------------------------
const CHARTS = [
  { title: "Rain", unit: "mm/h", lines: [["rate_mm_h", "rate", "c-rate"]], needs: "rate_mm_h" },
  { title: "Gate", unit: "", lines: [["benefit", "expected benefit", "c-derain"]], needs: "benefit", most: 1, band: "derained" },
  { title: "Boxes a frame", unit: "", lines: [["found", "found", "c-derain"], ["lost", "lost", "c-detect"]], needs: "found" },
  { title: "Milliseconds a frame", unit: "ms", lines: [["derain_ms", "derain", "c-derain"], ["detect_ms", "detect", "c-detect"]], needs: "derain_ms" },
  { title: "Frames a second", unit: "", lines: [["frames", "frames", "c-plain"]], needs: "frames" },
];
const SVG = "http://www.w3.org/2000/svg", H = 130, LEFT = 34, BOTTOM = 20, TOP = 6;
function element(name, attributes, text) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}
function nice(most) {
  const step = 10 ** Math.floor(Math.log10(most || 1));
  return [1, 2, 5, 10].map((n) => n * step).find((n) => n >= most) || 1;
}
function showCharts() {
  const now = Math.floor(Date.now() / 1e3), box = $("charts");
  $("over-time").hidden = !seconds.length;
  const span = Math.min(KEPT_S, Math.max(60, seconds.length ? now - seconds[0].time : 0));
  const wanted = CHARTS.filter((chart) => seconds.some((one) => one[chart.needs] !== undefined));
  const width = box.firstChild ? box.firstChild.clientWidth : 360; // all columns are equally wide
  box.replaceChildren(...wanted.map((chart) => figure(chart, now, span, width)));
}
function figure(chart, now, span, W) {
  const most = chart.most || nice(Math.max(0, ...seconds.flatMap((one) => chart.lines.map(([key]) => one[key] || 0))));
  const x = (time) => LEFT + ((time - now + span) / span) * (W - LEFT - 4), y = (v) => TOP + (1 - v / most) * (H - TOP - BOTTOM);
  const svg = element("svg", { viewBox: `0 0 ${W} ${H}`, role: "img" });
  for (const value of [0, most / 2, most]) {
    svg.append(element("path", { class: "grid", d: `M${LEFT} ${y(value)}H${W - 4}` }));
    svg.append(element("text", { x: LEFT - 6, y: y(value) + 4, "text-anchor": "end" }, +value.toPrecision(2)));
  }
  svg.append(element("text", { x: LEFT, y: H - 4 }, span >= 120 ? `${Math.round(span / 60)} min ago` : `${span} s ago`));
  svg.append(element("text", { x: W - 4, y: H - 4, "text-anchor": "end" }, "now"));
  if (chart.band) for (const one of seconds.filter((s) => s[chart.band] > 0.5))
    svg.append(element("rect", { class: "band", x: x(one.time), y: TOP, width: Math.max(1, x(one.time + 1) - x(one.time)), height: H - TOP - BOTTOM }));
  if (chart.band && threshold !== null) svg.append(element("path", { class: "limit", d: `M${LEFT} ${y(threshold)}H${W - 4}` }));
  const caption = document.createElement("figcaption"), title = document.createElement("b");
  title.textContent = chart.title;
  caption.append(title);
  const last = seconds[seconds.length - 1];
  for (const [key, name, color] of chart.lines) {
    let line = "", before = -Infinity;
    for (const one of seconds) {
      if (one[key] === undefined) continue;
      line += `${one.time - before > 15 ? "M" : "L"}${x(one.time).toFixed(1)} ${y(Math.min(one[key], most)).toFixed(1)}`;
      before = one.time;
    }
    svg.append(element("path", { class: color, d: line }));
    const label = document.createElement("span");
    label.className = color;
    label.textContent = `${name} ${last && last[key] !== undefined ? +last[key].toPrecision(3) : ""} ${chart.unit}`.trim();
    caption.append(label);
  }
  if (chart.band) caption.append(Object.assign(document.createElement("i"), { textContent: "shaded: derained" }));
  svg.setAttribute("aria-label", caption.textContent);
  const made = document.createElement("figure");
  made.append(caption, svg);
  return made;
}

// --- sources ------------------------------------------------------------------------------------
function look(name) {
  source = name;
  newest = 0;
  [mean, seconds, summary] = [{}, [], null];
  $("stages").replaceChildren();
  $("tiles").replaceChildren();
  asking.abort();
  asking = new AbortController();
  $("pause").hidden = !name;
  pressPause(false);
  for (const tab of $("tabs").children) tab.setAttribute("aria-pressed", String(tab.value === (name || "")));
  showCharts();
}
function pressPause(on) {
  paused = on;
  $("pause").setAttribute("aria-pressed", String(on));
}
function showSources(all) {
  $("all-sources").hidden = !all.length;
  const tabs = [...all.map((one) => one.name), ...(source === null && shown ? [""] : [])];
  if ([...$("tabs").children].map((tab) => tab.value).join("\n") !== tabs.join("\n"))
    $("tabs").replaceChildren(...tabs.map((name) => {
      const tab = Object.assign(document.createElement("button"), { type: "button", value: name, textContent: name || "your picture" });
      tab.setAttribute("aria-pressed", String(name === (source || "")));
      tab.addEventListener("click", () => name && look(name));
      return tab;
    }));
  $("sources").replaceChildren(...all.map((one) => {
    const row = document.createElement("tr"), state = document.createElement("span");
    const name = Object.assign(document.createElement("th"), { scope: "row", textContent: one.name });
    state.className = `tag ${one.state}`;
    state.textContent = one.state;
    row.append(name, document.createElement("td"));
    row.lastChild.append(state);
    const ms = (key) => (one.stage_ms[key] === undefined ? "–" : one.stage_ms[key].toFixed(1));
    for (const value of [one.frames, one.frames_per_s.toFixed(1), ms("derain"), ms("detect"), one.dropped ?? "–", one.reconnects ?? "–"])
      row.append(Object.assign(document.createElement("td"), { className: "number", textContent: value }));
    return row;
  }));
}
async function overview() {
  for (let first = true; ; first = false) {
    try {
      const all = await (await ask("v1/live")).json();
      $("title").textContent = all.title;
      threshold = all.threshold;
      if (first && all.sources.length) look(all.sources[0].name);
      showSources(all.sources);
      summary = all.sources.find((one) => one.name === source);
      if (summary) {
        const name = source, since = seconds.length ? seconds[seconds.length - 1].time : 0;
        const more = await (await ask(`v1/live/${encodeURIComponent(name)}/history?since=${since}`)).json();
        if (name === source && more.seconds) seconds = [...seconds, ...more.seconds].slice(-KEPT_S);
        showTiles(summary);
        showCharts();
      }
      const playing = all.sources.filter((one) => one.state === "playing").length;
      say(!all.sources.length ? "No live sources: try a picture." : `${playing} of ${all.sources.length} source${all.sources.length > 1 ? "s" : ""} playing`);
    } catch (error) {
      say("The server does not answer; trying again.", true);
    }
    await sleep(1000);
  }
}
async function follow() {
  for (;;) {
    if (!source || paused || document.hidden) { await sleep(150); continue; }
    const { signal } = asking;
    try {
      const response = await ask(`v1/live/${encodeURIComponent(source)}?after=${newest}`, { signal });
      if (response.status === 200 && !signal.aborted) {
        await take(response);
        if (!signal.aborted) newest = shown.record.number;
      } else if (response.status === 204) newest = 0; // the server may have begun again
      else await sleep(1000);
    } catch (error) {
      if (!signal.aborted) await sleep(1000);
    }
  }
}
async function send(file) {
  look(null);
  say(`Sending ${file.name} …`);
  const response = await ask("v1/compare", { method: "POST", body: file });
  if (!response.ok) return say((await response.json()).error, true);
  await take(response, file.name);
}

// --- controls -----------------------------------------------------------------------------------
const cut = (share) => { $("cut").value = share; $("pair").style.setProperty("--cut", `${$("cut").value}%`); };
$("cut").addEventListener("input", () => cut($("cut").value));
$("pair").addEventListener("pointermove", (event) => {
  const box = $("pair").getBoundingClientRect();
  cut((100 * (event.clientX - box.left)) / box.width);
});
for (const layer of document.querySelectorAll("[data-layer]")) layer.addEventListener("change", draw);
addEventListener("resize", draw);
$("pause").addEventListener("click", () => pressPause(!paused));
$("file").addEventListener("change", () => { if ($("file").files.length) send($("file").files[0]); $("file").value = ""; });
for (const kind of ["dragover", "dragleave", "drop"]) $("pair").addEventListener(kind, (event) => {
  event.preventDefault();
  $("pair").classList.toggle("over", kind === "dragover");
  if (kind === "drop" && event.dataTransfer.files.length) send(event.dataTransfer.files[0]);
});
overview();
follow();
