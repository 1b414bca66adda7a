"use strict";
// Random orders that a seed determines, and the form of the answers. Knows nothing of the page.

/** Random numbers from 0 to 1 (mulberry32). */
function generator(seed) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

function shuffled(list, random) {
  const result = [...list];
  for (let i = result.length - 1; i > 0; i--) {
    const j = Math.floor(random() * (i + 1));
    [result[i], result[j]] = [result[j], result[i]];
  }
  return result;
}

/** The items in random order, those that are repeated at least three places apart if any of 50 orders has this. */
function orderOf(items, random) {
  const repeated = items.filter((item) => item.repeats);
  let best = [];
  let widest = -1;
  for (let attempt = 0; attempt < 50 && widest < 3; attempt++) {
    const order = shuffled(items.map((item) => item.id), random);
    const gaps = repeated.map((item) => Math.abs(order.indexOf(item.id) - order.indexOf(item.repeats)));
    const gap = Math.min(Infinity, ...gaps);
    if (gap > widest) [best, widest] = [order, gap];
  }
  return best;
}

/** A new rater: random name, the orders that follow from it, no answers. */
function newState(study) {
  const bytes = crypto.getRandomValues(new Uint8Array(8));
  const rater = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  const seed = parseInt(rater.slice(0, 8), 16);
  const random = generator(seed);
  const order = orderOf(study.items, random);
  const videos = Object.fromEntries(study.items.map((item) => [item.id, item.videos]));
  const shown = Object.fromEntries(order.map((id) => [id, shuffled(videos[id], random)]));
  return { study: study.study, rater, seed, order, shown, ranks: {}, at: -1 };
}

/** Gives a video its rank. Whoever had this rank takes the former one; if one video is left, it takes what is left. */
function setRank(ranks, shown, video, rank) {
  const former = ranks[video];
  const holder = shown.find((other) => other !== video && ranks[other] === rank);
  if (holder && former) ranks[holder] = former;
  else if (holder) delete ranks[holder];
  ranks[video] = rank;
  const left = shown.filter((other) => !ranks[other]);
  if (left.length === 1) {
    const taken = shown.map((other) => ranks[other]);
    ranks[left[0]] = shown.map((_, i) => i + 1).find((free) => !taken.includes(free));
  }
}

/** CRC-32 of an ASCII text, as eight hexadecimal digits: it tells accidental changes. */
function checksum(text) {
  let crc = -1;
  for (let i = 0; i < text.length; i++) {
    crc ^= text.charCodeAt(i);
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return (~crc >>> 0).toString(16).padStart(8, "0");
}

/** The content of the file of answers. Ranks are in the order in which the videos were shown. */
function answersOf(study, state) {
  const answers = state.order.map((item) => {
    const ranked = study.questions.map(({ id }) => [id, state.shown[item].map((video) => state.ranks[item][id][video])]);
    return { item, shown: state.shown[item], ranks: Object.fromEntries(ranked) };
  });
  const body = { format: "itjax-study answers 1", study: state.study, rater: state.rater, seed: state.seed, answers };
  return JSON.stringify({ ...body, checksum: checksum(JSON.stringify(body)) }, null, 1) + "\n";
}
