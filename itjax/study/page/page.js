"use strict";
// The page: shows one item at a time, and keeps everything in localStorage after each change.

const STORE = `itjax-study ${STUDY.study}`; // pages opened from files share one storage
const element = (id) => document.getElementById(id);
const letter = (i) => String.fromCharCode(65 + i);
const itemOf = (id) => STUDY.items.find((item) => item.id === id);
let state = load() || newState(STUDY);
let together = false; // whether the videos play in step
let players = []; // of the videos to be ranked

function load() {
  try {
    const kept = JSON.parse(localStorage.getItem(STORE));
    const ids = kept.order.filter((id) => itemOf(id) && kept.shown[id].every((video) => itemOf(id).videos.includes(video)));
    return kept.study === STUDY.study && ids.length === STUDY.items.length && kept.ranks && "at" in kept ? kept : null;
  } catch {
    return null; // nothing kept, damaged, or no storage at all
  }
}

function save() {
  try {
    localStorage.setItem(STORE, JSON.stringify(state));
  } catch {
    element("unsaved").hidden = false;
  }
}

/** make("p", {className: "x"}, child, "text") -> an element. */
function make(tag, properties, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function show() {
  together = false;
  const here = state.at < 0 ? "start" : state.at < state.order.length ? "item" : "end";
  for (const name of ["start", "item", "end"]) element(name).hidden = name !== here;
  if (here === "item") showItem();
  else for (const old of element("videos").querySelectorAll("figure")) old.remove(); // else they would go on playing
  if (here === "end") showEnd();
  document.querySelector(`#${here} h2`).focus({ preventScroll: true });
  window.scrollTo(0, 0);
}

function go(at) {
  state.at = at;
  save();
  show();
}

function showItem() {
  const item = itemOf(state.order[state.at]);
  const shown = state.shown[item.id];
  element("heading").textContent = `Group ${state.at + 1} of ${state.order.length}`;
  Object.assign(element("progress"), { max: state.order.length, value: state.at });
  element("item").style.setProperty("--videos", shown.length);
  element("item").classList.toggle("with-reference", Boolean(item.reference));
  for (const old of element("videos").querySelectorAll("figure")) old.remove();
  players = shown.map((video, i) => player(`videos/${video}.mp4`, `Video ${letter(i)}`));
  element("videos").append(...players.map((video, i) => make("figure", {}, make("figcaption", {}, `Video ${letter(i)}`), video)));
  element("beside").replaceChildren(...controls(shown), ...reference(item));
  element("questions").replaceChildren(...STUDY.questions.map((question) => questionRow(question, item.id, shown)));
  element("said").textContent = "";
  element("missing").hidden = true;
  element("next").textContent = state.at + 1 < state.order.length ? "Next" : "Finish";
}

function player(source, label) {
  const video = make("video", { src: source, controls: true, preload: "auto", playsInline: true });
  video.setAttribute("aria-label", label);
  video.addEventListener("error", () => {
    video.after(make("p", { className: "notice" }, `${label} cannot be played. Please tell the people who asked you.`));
  });
  video.addEventListener("play", () => {
    if (together && players.includes(video)) return;
    stopTogether();
    for (const other of document.querySelectorAll("video")) if (other !== video) other.pause();
    video.muted = false;
  });
  video.addEventListener("pause", () => {
    if (together && players.includes(video) && !video.ended) pauseAll();
  });
  video.addEventListener("ended", () => {
    if (together && players.every((each) => each.ended)) stopTogether();
  });
  video.addEventListener("timeupdate", () => {
    if (!together || video !== audible() || video.ended) return;
    for (const other of players) {
      if (!other.ended && Math.abs(other.currentTime - video.currentTime) > 0.2) other.currentTime = video.currentTime;
    }
  });
  return video;
}

function controls(shown) {
  const choices = shown.map((_, i) => {
    const input = make("input", { type: "radio", name: "sound", checked: i === 0, value: i });
    input.addEventListener("change", () => together && muteOthers());
    return make("label", {}, input, letter(i));
  });
  const button = make("button", { type: "button", id: "together" }, "Play all together");
  button.addEventListener("click", () => (together ? pauseAll() : playAll()));
  return [button, make("fieldset", { className: "sound" }, make("legend", {}, "Sound when together"), ...choices)];
}

function reference(item) {
  if (!item.reference) return [];
  const source = `videos/${item.reference}`;
  const is_video = source.endsWith(".mp4");
  const shown = is_video ? player(source, "Reference") : make("img", { src: source, alt: "Reference: the person as given" });
  return [make("figure", {}, make("figcaption", {}, "Reference"), shown)];
}

const audible = () => players[Number(document.querySelector("input[name=sound]:checked").value)];

function muteOthers() {
  for (const video of players) video.muted = video !== audible();
}

function playAll() {
  for (const video of document.querySelectorAll("video")) if (!players.includes(video)) video.pause();
  const from = players.some((video) => video.ended) ? 0 : audible().currentTime;
  together = true;
  muteOthers();
  for (const video of players) {
    video.currentTime = from;
    video.play().catch(() => {}); // what cannot be played says so itself
  }
  element("together").textContent = "Pause all";
}

function stopTogether() {
  together = false;
  element("together").textContent = "Play all together";
}

function pauseAll() {
  stopTogether();
  for (const video of players) video.pause();
}

function questionRow(question, item, shown) {
  const title = question.title[0].toUpperCase() + question.title.slice(1);
  const text = make("div", { className: "first" }, make("h3", {}, title), make("p", {}, question.text));
  const row = make("div", { className: "question grid" }, text);
  row.setAttribute("role", "group");
  row.setAttribute("aria-label", `${title}: ${question.text}`);
  shown.forEach((video, i) => {
    const ranks = make("div", { className: "ranks" }, make("b", {}, `Video ${letter(i)}`));
    ranks.setAttribute("role", "radiogroup");
    ranks.setAttribute("aria-label", `${title}: rank of video ${letter(i)}`);
    shown.forEach((_, number) => {
      const rank = number + 1;
      const input = make("input", { type: "radio", name: `${question.id} ${video}`, value: rank });
      input.checked = state.ranks[item]?.[question.id]?.[video] === rank;
      input.addEventListener("change", () => rankChosen(row, question, title, item, shown, video, rank));
      ranks.append(make("label", {}, input, String(rank)));
    });
    row.append(ranks);
  });
  return row;
}

function rankChosen(row, question, title, item, shown, video, rank) {
  const ranks = ((state.ranks[item] ??= {})[question.id] ??= {});
  setRank(ranks, shown, video, rank);
  save();
  row.querySelectorAll(".ranks").forEach((group, i) => {
    for (const input of group.querySelectorAll("input")) input.checked = ranks[shown[i]] === Number(input.value);
  });
  const told = shown.map((each, i) => `${letter(i)} ${ranks[each] ?? "without rank"}`);
  element("said").textContent = `${title}: ${told.join(", ")}`;
  element("missing").hidden = true;
}

const unanswered = (item) =>
  STUDY.questions.map((question, i) => [question, i]).filter(([{ id }]) =>
    state.shown[item].some((video) => !state.ranks[item]?.[id]?.[video]));

function refuse(text) {
  element("missing").textContent = text;
  element("missing").hidden = false;
}

function next() {
  if (players.some((video) => video.error)) return refuse("What cannot be seen cannot be ranked: please try another browser.");
  const missing = unanswered(state.order[state.at]);
  if (!missing.length) return go(state.at + 1);
  refuse(`Please rank all videos: ${missing.map(([question]) => question.title).join(", ")}.`);
  element("questions").children[missing[0][1]].querySelector("input").focus();
}

function showEnd() {
  const open = state.order.findIndex((item) => unanswered(item).length);
  if (open >= 0) return go(open); // the storage was changed by hand
  const text = answersOf(STUDY, state);
  element("text").value = text;
  element("copied").textContent = "";
  URL.revokeObjectURL(element("download").href);
  element("download").href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  element("download").download = `answers-${state.rater}.json`;
}

async function copy() {
  try {
    await navigator.clipboard.writeText(element("text").value);
    element("copied").textContent = "Copied.";
  } catch {
    element("text").select(); // pages without https have no clipboard
    element("copied").textContent = document.execCommand("copy") ? "Copied." : "Please copy the selected text.";
  }
}

function another() {
  if (!confirm("Did you save the answers? They are removed from this browser.")) return;
  state = newState(STUDY);
  save();
  show();
}

document.title = element("title").textContent = STUDY.title;
element("count").textContent = state.order.length;
element("begin").addEventListener("click", () => go(0));
element("back").addEventListener("click", () => go(state.at - 1));
element("next").addEventListener("click", next);
element("copy").addEventListener("click", copy);
element("revise").addEventListener("click", () => go(state.order.length - 1));
element("another").addEventListener("click", another);
window.addEventListener("storage", (event) => {
  if (event.key !== STORE) return;
  state = load() || state; // answered in another tab: go on from there, lest this one undo it
  show();
});
save();
show();
