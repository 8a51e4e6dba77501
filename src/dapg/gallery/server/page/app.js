// The page of a gallery. Everything it shows comes from /api/v1; text is set as text, never as markup.
const $ = (id) => document.getElementById(id);
const state = { csrf: "", role: "viewer", pictures: [], search: null, answers: [], cleanRanks: null, verdicts: new Map(), busy: 0 };
const may = (role) => ["viewer", "operator", "admin"].indexOf(state.role) >= ["viewer", "operator", "admin"].indexOf(role);

async function api(path, options = {}) {
  const headers = { ...(options.headers || {}), "X-CSRF-Token": state.csrf };
  if (options.json !== undefined) {
    headers["Content-Type"] = "application/json";
    options = { ...options, body: JSON.stringify(options.json) };
  }
  const response = await fetch(`/api/v1${path}`, { ...options, headers });
  if (response.status === 401) { location.assign("/login"); throw new Error("Logged out."); }
  if (!response.ok) {
    const body = await response.json().catch(() => ({}));
    throw new Error(typeof body.detail === "string" ? body.detail : `The server refused (${response.status}).`);
  }
  return response;
}

function element(tag, values = {}, ...children) {
  const made = Object.assign(document.createElement(tag), values);
  made.append(...children.filter((child) => child !== null && child !== ""));
  return made;
}

const say = (text) => { $("message").textContent = text; };

// A query image on a canvas, with the box in pixels of the image.
class Picture {
  constructor(file, image) {
    this.file = file;
    this.image = image;
    this.box = null;
    this.canvas = element("canvas", { width: image.width, height: image.height, tabIndex: 0 });
    this.canvas.setAttribute("role", "img");
    this.canvas.setAttribute("aria-label", `Query image ${file.name}: arrow keys move the box`);
    this.canvas.addEventListener("pointerdown", (event) => this.begin(event));
    this.canvas.addEventListener("pointermove", (event) => this.extend(event));
    this.canvas.addEventListener("pointerup", () => this.end());
    this.canvas.addEventListener("keydown", (event) => this.key(event));
    this.draw();
  }
  place(event) {
    const seen = this.canvas.getBoundingClientRect();
    return [(event.clientX - seen.left) * this.canvas.width / seen.width, (event.clientY - seen.top) * this.canvas.height / seen.height];
  }
  begin(event) {
    this.canvas.setPointerCapture(event.pointerId);
    this.corner = this.place(event);
  }
  extend(event) {
    if (!this.corner) return;
    const [x, y] = this.place(event), [a, b] = this.corner;
    this.set([Math.min(a, x), Math.min(b, y), Math.max(a, x), Math.max(b, y)]);
  }
  end() {
    this.corner = null;
    if (this.box && (this.box[2] - this.box[0] < 8 || this.box[3] - this.box[1] < 8)) this.set(null);
    preview();
  }
  key(event) {
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (event.key === "Escape") this.set(null);
    else if (!(event.key in moves)) return;
    else {
      const step = Math.max(2, Math.round(this.canvas.height / 50));
      const [x, y] = moves[event.key].map((side) => side * step);
      const { width, height } = this.canvas;
      const box = this.box || [width / 4, height / 8, (3 * width) / 4, (7 * height) / 8];
      this.set(event.shiftKey ? [box[0], box[1], box[2] + x, box[3] + y] : [box[0] + x, box[1] + y, box[2] + x, box[3] + y]);
    }
    event.preventDefault();
    preview();
  }
  set(box) {
    const { width, height } = this.canvas;
    if (box) {
      box = [Math.max(0, box[0]), Math.max(0, box[1]), Math.min(width, box[2]), Math.min(height, box[3])].map(Math.round);
      if (box[2] - box[0] < 1 || box[3] - box[1] < 1) return;
    }
    this.box = box;
    this.draw();
  }
  draw() {
    const { canvas } = this, context = canvas.getContext("2d");
    context.drawImage(this.image, 0, 0);
    if (!this.box) return;
    const [left, top, right, bottom] = this.box;
    context.fillStyle = "rgba(0, 0, 0, 0.5)";
    context.fillRect(0, 0, canvas.width, top);
    context.fillRect(0, bottom, canvas.width, canvas.height - bottom);
    context.fillRect(0, top, left, bottom - top);
    context.fillRect(right, top, canvas.width - right, bottom - top);
    context.strokeStyle = "#ffd60a";
    context.lineWidth = Math.max(1, canvas.height / 160);
    context.strokeRect(left, top, right - left, bottom - top);
  }
}

async function take(files) {
  const chosen = [...files].slice(0, 8);
  const pictures = [];
  for (const file of chosen) {
    try { pictures.push(new Picture(file, await createImageBitmap(file))); }
    catch { say(`${file.name} is no image that this browser can show.`); return; }
  }
  if (!pictures.length) return;
  state.pictures = pictures;
  state.cleanRanks = null;
  $("severity").value = 0;
  severity();
  $("pictures").replaceChildren(...pictures.map((picture) => element("figure", {}, picture.canvas, element("figcaption", { textContent: picture.file.name }))));
  $("box-help").hidden = false;
  $("search").disabled = false;
  say("");
}

function queryForm(count = state.pictures.length) {
  const form = new FormData();
  for (const picture of state.pictures.slice(0, count)) {
    form.append("files", picture.file, picture.file.name);
    form.append("box", picture.box ? picture.box.join(",") : "");
  }
  if (Number($("severity").value)) {
    form.append("damage", $("damage").value);
    form.append("severity", $("severity").value);
  }
  return form;
}

function searchForm() {
  const form = queryForm();
  for (const name of ["modality", "among", "reason"]) if ($(name).value) form.append(name, $(name).value);
  for (const name of ["after", "before"]) if ($(name).value) form.append(name, Date.parse(`${$(name).value}Z`) / 1000);
  form.append("top", $("top").value || "12");
  for (const box of $("cameras").querySelectorAll("input:checked")) form.append("camera", box.value);
  return form;
}

async function search() {
  if (!state.pictures.length) return;
  const turn = ++state.busy;
  say("Searching …");
  try {
    const result = await (await api("/search", { method: "POST", body: searchForm() })).json();
    if (turn !== state.busy) return; // a newer search is on its way
    const damaged = Number($("severity").value) > 0;
    if (!damaged) state.cleanRanks = new Map(result.answers.map((answer, place) => [answer.picture, place + 1]));
    Object.assign(state, { search: result.search, answers: result.answers, damaged, verdicts: new Map() });
    say("");
    summary(result);
    show();
    await timeline();
  } catch (error) { if (turn === state.busy) say(error.message); }
}

function summary(result) {
  const words = { same: 0, ask: 0, unknown: 0 };
  for (const answer of result.answers) if (answer.verdict) words[answer.verdict.word] += 1;
  const judged = result.answers.some((answer) => answer.verdict);
  const verdict = !judged ? "The gallery has no thresholds for this kind of light: dapg threshold makes them."
    : words.same ? `${words.same} of them so similar that they count as the same person.`
    : words.ask ? "None is similar enough to count as the same person; some need a person's eye."
    : "Nobody here is similar enough: the person is probably unknown.";
  $("summary").textContent = `Search ${result.search}, ${result.query_modality} query: ${result.answers.length} answers. ${verdict}`;
  $("rates").textContent = Object.entries(result.error_rates).map(([light, said]) => `Among ${light} images: ${said}`).join(". ");
  $("answers-box").hidden = false;
}

const WORDS = { same: "same person", ask: "have a person look", unknown: "probably somebody else" };

function card(answer, place) {
  const verdict = answer.verdict;
  const said = verdict ? `${WORDS[verdict.word]} (${Math.round(100 * verdict.probability)} %)` : "";
  const before = state.damaged && state.cleanRanks ? state.cleanRanks.get(answer.picture) : undefined;
  const moved = !state.damaged || !state.cleanRanks ? "" : before === undefined ? "not among the answers without damage"
    : before === place ? "same place without damage" : `place ${before} without damage`;
  const spoken = state.verdicts.get(answer.picture);
  const buttons = element("div", { className: "row" });
  if (may("operator")) {
    for (const [same, text] of [[true, "Same"], [false, "Not the same"]]) {
      const button = element("button", { type: "button", textContent: text, className: spoken === same ? "chosen" : "" });
      button.setAttribute("aria-pressed", String(spoken === same));
      button.addEventListener("click", () => judge(answer.picture, same));
      buttons.append(button);
    }
  }
  if (may("admin")) {
    const button = element("button", { type: "button", textContent: "Delete …", className: "danger" });
    button.addEventListener("click", () => remove(answer));
    buttons.append(button);
  }
  const made = element("article", { className: `card ${verdict ? verdict.word : ""}` },
    element("img", { src: `/api/v1/pictures/${answer.picture}/thumbnail`, alt: `Image ${answer.picture} of ${answer.camera}`, loading: "lazy" }),
    element("p", {}, element("b", { textContent: `${place}. ` }), `similarity ${answer.score.toFixed(3)}`),
    said ? element("p", { className: "word", textContent: said }) : null,
    element("p", { textContent: [answer.camera, answer.clock].filter(Boolean).join(", ") }),
    answer.person ? element("p", { textContent: answer.person }) : null,
    answer.pictures > 1 ? element("p", { className: "note", textContent: `best of ${answer.pictures} in its track` }) : null,
    moved ? element("p", { className: "moved", textContent: moved }) : null, buttons);
  made.dataset.picture = answer.picture;
  return made;
}

function show() {
  const ranked = state.answers.map((answer, place) => [answer, place + 1]);
  const order = $("order").value;
  if (order === "camera") ranked.sort((a, b) => a[0].camera.localeCompare(b[0].camera) || a[1] - b[1]);
  if (order === "time") ranked.sort((a, b) => (a[0].time ?? Infinity) - (b[0].time ?? Infinity) || a[1] - b[1]);
  $("answers").replaceChildren(...ranked.map(([answer, place]) => card(answer, place)));
}

async function judge(picture, same) {
  try {
    await api(`/searches/${state.search}/verdicts`, { method: "POST", json: { picture, same } });
    state.verdicts.set(picture, same);
    show();
    await timeline();
  } catch (error) { say(error.message); }
}

async function timeline() {
  const { sightings } = await (await api(`/searches/${state.search}/timeline`)).json();
  $("timeline").replaceChildren(...sightings.map((picture) => element("li", {},
    element("img", { src: `/api/v1/pictures/${picture.number}/thumbnail`, alt: `Sighting by ${picture.camera}` }),
    element("div", { textContent: picture.camera }), element("div", { textContent: picture.clock }))));
  $("timeline-box").hidden = !sightings.length;
  $("export").hidden = !may("operator");
}

function remove(answer) {
  const dialog = $("delete");
  $("delete-what").textContent = `Image ${answer.picture} of ${answer.camera} goes, with its features and everything that came of it.`;
  $("delete-reason").value = $("reason").value;
  dialog.returnValue = "";
  dialog.onclose = async () => {
    if (dialog.returnValue !== "delete") return;
    try {
      const reason = encodeURIComponent($("delete-reason").value);
      await api(`/pictures/${answer.picture}?reason=${reason}`, { method: "DELETE" });
      state.answers = state.answers.filter((other) => other.picture !== answer.picture);
      show();
      await timeline();
      say(`Image ${answer.picture} is deleted.`);
    } catch (error) { say(error.message); }
  };
  dialog.showModal();
}

async function exportCase() {
  try {
    const response = await api(`/searches/${state.search}/export`, { method: "POST", json: { reason: $("reason").value } });
    const link = element("a", { href: URL.createObjectURL(await response.blob()), download: `case-${state.search}.zip` });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    say(`Search ${state.search} is exported.`);
  } catch (error) { say(error.message); }
}

function severity() {
  const value = Number($("severity").value);
  $("severity-said").textContent = value ? `${value} of 5` : "none";
  $("damaged").hidden = !value || !state.pictures.length;
}

let previewing = 0;
async function preview() {
  severity();
  if (!Number($("severity").value) || !state.pictures.length) return;
  const turn = ++previewing;
  try {
    const blob = await (await api("/damage", { method: "POST", body: queryForm(1) })).blob();
    if (turn !== previewing) return;
    URL.revokeObjectURL($("damaged").src);
    $("damaged").src = URL.createObjectURL(blob);
    $("damaged").alt = `The query with ${$("damage").value}, severity ${$("severity").value}`;
  } catch (error) { say(error.message); }
}

async function add(event) {
  event.preventDefault();
  const form = new FormData();
  for (const file of $("add-files").files) form.append("files", file, file.name);
  form.append("camera", $("add-camera").value);
  form.append("modality", $("add-modality").value);
  if ($("add-time").value) form.append("time", Date.parse(`${$("add-time").value}Z`) / 1000);
  try {
    const counts = await (await api("/pictures", { method: "POST", body: form })).json();
    $("add-message").textContent = Object.entries(counts).filter(([, count]) => count).map(([name, count]) => `${count} ${name}`).join(", ");
    await about();
  } catch (error) { $("add-message").textContent = error.message; }
}

async function about() {
  const info = await (await api("/info")).json();
  const cameras = info.cameras || [];
  const checked = new Set([...$("cameras").querySelectorAll("input:checked")].map((box) => box.value));
  const names = [...new Set(cameras.map((camera) => camera.name))];
  const thresholds = info.thresholds.length ? "" : " It has no thresholds yet.";
  $("about").textContent = `${info.pictures} images of ${names.length} cameras, encoded with ${info.model.name}.${thresholds}`;
  $("cameras").replaceChildren(...names.map((name) => element("label", {}, element("input", { type: "checkbox", value: name, checked: checked.has(name) }), name)));
  return info;
}

async function begin() {
  const session = await (await api("/session")).json();
  Object.assign(state, { csrf: session.csrf, role: session.role });
  $("user").textContent = `${session.name}, ${session.role}`;
  const info = await about();
  $("damage").replaceChildren(...info.damages.map((name) => element("option", { value: name, textContent: name.replaceAll("_", " ") })));
  if (info.damages.includes("fog")) $("damage").value = "fog";
  $("add-box").hidden = !may("operator");
  $("offered").hidden = !info.queries.length;
  $("offered").replaceChildren(...info.queries.map((name) => {
    const button = element("button", { type: "button", className: "offer" },
      element("img", { src: `/api/v1/queries/${encodeURIComponent(name)}`, alt: "" }), name.replace(".png", "").replaceAll("_", ", ").replaceAll("-", " "));
    button.addEventListener("click", async () => {
      const blob = await (await api(`/queries/${encodeURIComponent(name)}`)).blob();
      await take([new File([blob], name, { type: blob.type })]);
      await search();
    });
    return button;
  }));
}

$("files").addEventListener("change", (event) => take(event.target.files));
$("drop").addEventListener("dragover", (event) => { event.preventDefault(); $("drop").classList.add("over"); });
$("drop").addEventListener("dragleave", () => $("drop").classList.remove("over"));
$("drop").addEventListener("drop", (event) => { event.preventDefault(); $("drop").classList.remove("over"); take(event.dataTransfer.files); });
document.addEventListener("paste", (event) => { if (event.clipboardData.files.length) take(event.clipboardData.files); });
$("settings").addEventListener("submit", (event) => { event.preventDefault(); search(); });
$("severity").addEventListener("input", severity);
$("severity").addEventListener("change", async () => { await preview(); if (state.search) await search(); });
$("damage").addEventListener("change", async () => { if (!Number($("severity").value)) return; await preview(); if (state.search) await search(); });
$("order").addEventListener("change", show);
$("export").addEventListener("click", exportCase);
$("add").addEventListener("submit", add);
$("logout").addEventListener("click", async () => { await api("/logout", { method: "POST" }); location.assign("/login"); });
begin().catch((error) => say(error.message));
