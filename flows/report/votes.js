"use strict";
// The page of questions and votes: filters, search and pages over the data that stands in it. Every text is put in as a
// text node, never as HTML. Only the questions of one page are in the document, so thousands of them stay usable.

const questions = JSON.parse(document.getElementById("data").textContent);
const place = (name) => document.getElementById(name);
const ORDER = ["positive", "same text as a positive", "negative", "same text as a negative", "out", "not selected"];
const PICKS = {
  any: () => true,
  right: (one) => one.correct === true,
  wrong: (one) => one.correct === false,
  tie: (one) => one.tie,
  none: (one) => one.winner === null,
  unknown: (one) => one.label === null,
};
const WITH = { unparsed: (one) => one.unparsed, miscalculated: (one) => one.miscalculated };
let chosen = questions;
let page = 0;
let open = false;

function make(tag, kind, ...children) {
  const made = document.createElement(tag);
  if (kind) made.className = kind;
  made.append(...children);
  return made;
}

function mark(words, kind) {
  return make("span", `mark ${kind}`, words);
}

function verdict(correct) {
  return correct === null ? "" : correct ? mark("right", "yes") : mark("wrong", "no");
}

function plural(count, word) {
  return `${count.toLocaleString("en")} ${word}${count === 1 ? "" : "s"}`;
}

function searched(one) {
  // Made when it is first needed, and kept.
  one.searched ??= [
    one.id, one.question, ...one.choices, one.label, one.winner,
    ...one.samples.flatMap((sample) => [sample.answer, sample.text, sample.model]),
  ].join("\n").normalize().toLowerCase();
  return one.searched;
}

function find() {
  const pick = document.querySelector("input[name=majority]:checked").value;
  const needed = Object.keys(WITH).filter((name) => place(name).checked);
  const words = place("search").value.trim().normalize().toLowerCase();
  chosen = questions.filter(
    (one) => PICKS[pick](one) && needed.every((name) => WITH[name](one)) && (!words || searched(one).includes(words)),
  );
  if (place("order").value === "share") {
    chosen.sort((one, other) => (one.share ?? 0) - (other.share ?? 0));
  }
  page = 0;
  show();
}

function show() {
  const size = Number(place("size").value);
  const pages = Math.max(1, Math.ceil(chosen.length / size));
  const first = page * size;
  const shown = chosen.slice(first, first + size);
  place("questions").replaceChildren(...shown.map(article));
  place("status").textContent = chosen.length
    ? `Questions ${(first + 1).toLocaleString("en")} to ${(first + shown.length).toLocaleString("en")} of ` +
      `${chosen.length.toLocaleString("en")}` + (chosen.length < questions.length ? " found" : "")
    : "No question is like that.";
  for (const one of document.querySelectorAll("[data-step]")) {
    const there = page + Number(one.dataset.step);
    one.disabled = there < 0 || there >= pages;
  }
}

function article(one) {
  const made = make("article", "", make("p", "note", `${one.id} · ${one.split}`), make("div", "said asked", one.question));
  if (one.choices.length) {
    const lines = one.choices.map((choice, at) => make("li", "", `(${one.letters[at]}) ${choice}`));
    made.append(make("ul", "choices", ...lines));
  }
  const majority =
    one.winner === null
      ? ["none "]
      : [make("b", "", one.winner), ` with ${one.votes} of ${plural(one.voters, "vote")} `];
  const told = make("dl", "");
  told.append(make("dt", "", "label"), make("dd", "", one.label ?? "unknown"));
  told.append(make("dt", "", "majority"));
  told.append(make("dd", "", ...majority, verdict(one.correct), " ", one.tie ? mark("tie", "") : ""));
  const others = one.tally.map(([answer, count]) => `${answer} ×${count}`);
  if (one.tally.length > 1) told.append(make("dt", "", "votes"), make("dd", "", others.join(" · ")));
  made.append(told);
  if (one.outdated) {
    made.append(make("p", "note", "Its samples are not those that were voted on: run qcrd vote again."));
  }
  const samples = make("details", "", make("summary", "", counted(one.samples)));
  const rank = (sample) => ORDER.findIndex((words) => sample.words.startsWith(words));
  samples.append(...one.samples.toSorted((a, b) => rank(a) - rank(b)).map(explained));
  samples.open = open;
  made.append(samples);
  return made;
}

function counted(samples) {
  const sides = [["positive", "positive"], ["negative", "negative"], [null, "neither"]];
  const told = sides.map(([side, word]) => [samples.filter((one) => one.side === side).length, word]);
  const some = told.filter(([count]) => count).map(([count, word]) => `${count} ${word}`);
  return `${plural(samples.length, "sample")}: ${some.join(", ")}`;
}

function explained(sample) {
  const kind = { positive: "yes", negative: "no" }[sample.side] ?? "";
  const head = make("p", "", mark(sample.words, kind), " ");
  if (sample.answer !== null) head.append("answer ", make("b", "", sample.answer), " ", verdict(sample.correct), " ");
  if (sample.miscalculated) head.append(mark("wrong arithmetic", ""), " ");
  if (sample.cut) head.append(mark("cut off", ""), " ");
  const score = sample.score === null ? "" : ` · quality ${sample.score.toFixed(2)}`;
  head.append(make("small", "", `${sample.model} #${sample.index}${score}`));
  return make("div", "sample", head, make("div", "said", sample.text || "(empty)"));
}

function turn(step) {
  page += step;
  show();
  place("questions").scrollIntoView();
}

for (const [name, picks] of Object.entries(PICKS)) {
  place(`n-${name}`).textContent = questions.filter(picks).length.toLocaleString("en");
}
for (const [name, has] of Object.entries(WITH)) {
  place(`n-${name}`).textContent = questions.filter(has).length.toLocaleString("en");
}
let waiting;
place("search").addEventListener("input", () => {
  clearTimeout(waiting);
  waiting = setTimeout(find, 150);
});
for (const one of document.querySelectorAll("input:not(#search), select")) one.addEventListener("change", find);
for (const one of document.querySelectorAll("[data-step]")) {
  one.addEventListener("click", () => turn(Number(one.dataset.step)));
}
place("open").addEventListener("click", () => {
  open = !open;
  place("open").textContent = open ? "Close all samples" : "Open all samples";
  for (const one of document.querySelectorAll("article details")) one.open = open;
});
find();
