// The search viewer: pick an iteration and a problem, see what was sampled, who beat whom, and what became of it.
//
// Texts come as HTML that Python escaped; everything else is put in as text.
"use strict";

const EVENTS = { kept: "kept", rolled_back: "rolled back", tied: "nobody won" };

function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

function count(number, one, many = one + "s") {
  return `${number} ${number === 1 ? one : many}`;
}

function verdictOf(node) {
  if (node.margin) return `margin ${node.margin}`;
  return node.candidates.length > 1 ? "no winner" : "all the same";
}

// The verdicts by pair, in the order in which they were asked: a pair counts where all of them name one winner.
function pairs(judgements) {
  const found = new Map();
  for (const judgement of judgements) {
    const [first, second] = judgement;
    const key = [Math.min(first, second), Math.max(first, second)].join();
    if (!found.has(key)) found.set(key, []);
    found.get(key).push(judgement);
  }
  return [...found.values()].map((asked) => {
    const winners = new Set(asked.map((judgement) => judgement[2]));
    const winner = winners.size === 1 ? asked[0][2] : null;
    return { asked, winner, loser: winner === null ? null : asked[0][0] === winner ? asked[0][1] : asked[0][0] };
  });
}

function searchViewer(traces) {
  const pick = Object.fromEntries(
    ["run", "iteration", "kind", "problem"].map((name) => [name, document.getElementById("pick-" + name)]),
  );
  const article = document.getElementById("problem");
  const unfilled = new Map(); // what fills the body of a step that has not been opened yet: most never are
  const text = (name, number, attributes = {}) => {
    const element = make(name, { class: "text", ...attributes });
    element.innerHTML = traces.texts[number];
    return element;
  };
  // Candidates are called c1, c2, ... as they were sampled, without what was sampled before.
  const called = (node, index) => "c" + (1 + node.candidates.findIndex((candidate) => candidate.index === index));
  const kinds = {
    all: () => true,
    rolled: (problem) => problem.nodes.some((node) => node.event !== "kept"),
    unfinished: (problem) => !problem.finished,
    pairs: (problem) => problem.nodes.some((node) => node.event === "kept" && node.margin > 0),
  };

  const run = () => traces.runs[pick.run.selectedIndex];
  const iteration = () => run().iterations[pick.iteration.selectedIndex];
  const shown = () => iteration().problems.filter(kinds[pick.kind.value]);

  function fill(select, names, keep) {
    const before = select.value;
    select.replaceChildren(...names.map((name) => new Option(name)));
    if (keep && names.includes(before)) select.value = before;
    select.disabled = names.length === 0;
  }

  // Where the reader is, which a page that is loaded anew goes on from.
  function places() {
    return Object.fromEntries(Object.entries(pick).map(([name, select]) => [name, select.value]));
  }

  function goTo(place) {
    const fillers = { run: fillIterations, iteration: fillProblems, kind: fillProblems, problem: showProblem };
    for (const [name, filler] of Object.entries(fillers)) {
      if (![...pick[name].options].some((option) => option.value === place[name])) continue;
      pick[name].value = place[name];
      filler();
    }
  }

  // More has been searched: the lists grow, and the problem that is being read stays as it is.
  function update(newer) {
    const before = places();
    traces = newer;
    fill(pick.run, traces.runs.map(({ name }) => name), true);
    fill(pick.iteration, iterationNames(), true);
    const moved = before.iteration !== pick.iteration.value;
    fill(pick.problem, shown().map((problem) => problem.id), true);
    if (moved || !before.problem) showProblem();
    else if (pick.problem.value !== before.problem) pick.problem.selectedIndex = -1; // it is no longer in the sample
    tellSample();
  }

  function iterationNames() {
    return run().iterations.map(({ number }) => `M${number - 1} searches for M${number}`);
  }

  function fillIterations() {
    fill(pick.iteration, iterationNames(), true);
    fillProblems();
  }

  function fillProblems() {
    fill(pick.problem, shown().map((problem) => problem.id), true);
    tellSample();
    showProblem();
  }

  function tellSample() {
    const { searched, problems } = iteration();
    const drawn = problems.length === searched ? "All of" : `${problems.length}, drawn at random, of`;
    document.getElementById("sample").textContent =
      `${drawn} ${count(searched, "problem")} of this iteration are in this file; ` +
      `${count(shown().length, "is", "are")} listed.`;
  }

  function describe(node, candidate) {
    const role = candidate.index === node.chosen ? ", chosen" : candidate.index === node.rejected ? ", rejected" : "";
    return `${called(node, candidate.index)}: ${count(candidate.score, "win")}${role}`;
  }

  function badge(node, index) {
    const role = index === node.chosen ? "chosen" : index === node.rejected ? "rejected" : "other";
    return make("span", { class: "badge " + role }, called(node, index));
  }

  function candidateItem(node, candidate) {
    const role = candidate.index === node.chosen ? "chosen" : candidate.index === node.rejected ? "rejected" : "";
    const facts = [
      role && `${role}`,
      count(candidate.score, "win"),
      candidate.sampled > 1 && `sampled ${candidate.sampled} times`,
      `log p ${candidate.logprob.toFixed(2).replace("-", "−")}`,
      count(candidate.tokens, "token"),
      candidate.final && "ends the solution",
    ].filter(Boolean);
    const body = make("div", {}, text("div", candidate.text), make("p", { class: "caption" }, facts.join(" · ")));
    return make("li", { class: role }, badge(node, candidate.index), body);
  }

  function verdictItem(node, { asked, winner, loser }) {
    const [first, second] = asked[0];
    const summary = make("summary");
    if (winner === null) {
      const why = asked.some((judgement) => judgement[2] === null) ? "no winner" : "the orders disagree";
      summary.append(badge(node, first), " and ", badge(node, second), make("span", { class: "caption" }, why));
    } else {
      summary.append(badge(node, winner), " beats ", badge(node, loser));
    }
    const orders = asked.map(([a, b, won]) => {
      const said = won === null ? "none" : called(node, won);
      return `A ${called(node, a)}, B ${called(node, b)} → ${said}`;
    });
    summary.append(make("span", { class: "orders" }, orders.join("   ")));
    const replies = asked.map(([a, b, won, reply]) =>
      make(
        "div",
        { class: "reply" },
        make("p", { class: "caption" }, `shown as A: ${called(node, a)}, as B: ${called(node, b)}`),
        text("blockquote", reply),
        make("p", { class: "caption" }, won === null ? "no winner" : `verdict: ${called(node, won)}`),
      ),
    );
    return make("li", {}, make("details", {}, summary, ...replies));
  }

  function fillBody(node, body) {
    body.append(
      make("h4", {}, `Candidates, ${count(node.candidates.length, "text")}`),
      make("ol", { class: "candidates" }, ...ranked(node).map((candidate) => candidateItem(node, candidate))),
    );
    const found = pairs(node.judgements);
    if (found.length) {
      body.append(
        make("h4", {}, `Who beat whom, ${count(node.judgements.length, "verdict")} in the order asked`),
        make("ol", { class: "verdicts" }, ...found.map((pair) => verdictItem(node, pair))),
      );
    }
  }

  function expansionItem(node, i) {
    const chosen = node.candidates.find((candidate) => candidate.index === node.chosen);
    const body = make("div", { class: "body", id: "expansion-" + i, hidden: "" });
    const button = make(
      "button",
      { type: "button", "aria-expanded": "false", "aria-controls": "expansion-" + i, "data-expansion": i },
      make("span", { class: "where" }, `Step ${node.depth + 1}`),
      chosen ? text("span", chosen.text) : make("span", { class: "text" }, "no candidate"),
      make("span", { class: "event " + node.event }, EVENTS[node.event]),
      make("span", { class: "margin" }, verdictOf(node)),
    );
    unfilled.set(body, () => fillBody(node, body));
    button.addEventListener("click", () => toggle(button, body));
    return make("li", { class: "expansion " + node.event }, make("h3", {}, button), body);
  }

  function toggle(button, body, opened = body.hidden) {
    unfilled.get(body)?.();
    unfilled.delete(body);
    body.hidden = !opened;
    button.setAttribute("aria-expanded", String(opened));
    const group = article.querySelector(`svg [data-expansion="${button.dataset.expansion}"]`);
    group.classList.toggle("open", opened);
  }

  function open(i) {
    const button = article.querySelector(`button[data-expansion="${i}"]`);
    toggle(button, document.getElementById("expansion-" + i), true);
    button.focus();
    button.scrollIntoView({ block: "center" });
  }

  function showProblem() {
    const problem = shown()[pick.problem.selectedIndex];
    article.replaceChildren();
    unfilled.clear();
    for (const name of ["previous", "next"]) document.getElementById(name).disabled = shown().length < 2;
    if (!problem) {
      article.append(make("p", { class: "missing" }, "No problem of this kind in the sample."));
      return;
    }
    const events = (event) => problem.nodes.filter((node) => node.event === event).length;
    const facts = [
      problem.finished ? "finished" : "unfinished",
      count(events("kept"), "step") + " kept",
      events("rolled_back") && `${events("rolled_back")} rolled back`,
      events("tied") && count(events("tied"), "tie"),
      count(problem.nodes.filter((node) => node.event === "kept" && node.margin > 0).length, "step pair"),
    ].filter(Boolean);
    const list = make("ol", { class: "expansions" }, ...problem.nodes.map(expansionItem));
    const roles = ["chosen", "rejected", "other"].map((role) =>
      make("span", {}, make("span", { class: "badge " + role }), role),
    );
    const back = kinds.rolled(problem) ? "; dashed lines were taken back" : "";
    const key = make("figcaption", { class: "key" }, ...roles, make("span", {}, `number: wins${back}`));
    const all = make("button", { type: "button", class: "plain" }, "Expand all");
    all.addEventListener("click", () => {
      for (const button of list.querySelectorAll("button[aria-expanded]")) {
        toggle(button, document.getElementById(button.getAttribute("aria-controls")), true);
      }
    });
    const scroll = make("div", { class: "tree-scroll", tabindex: "0", role: "group", "aria-label": "Search tree" });
    scroll.append(drawTree(problem.nodes, describe, open));
    article.append(
      make(
        "header",
        {},
        text("p", problem.text, { class: "text statement" }),
        make("p", { class: "caption" }, facts.join(" · ") + " ", all),
      ),
      make("div", { class: "search-grid" }, make("figure", { class: "tree" }, scroll, key), list),
    );
    const first = problem.nodes.findIndex((node) => node.margin > 0);
    const button = article.querySelector(`button[data-expansion="${Math.max(first, 0)}"]`);
    if (button) toggle(button, document.getElementById(button.getAttribute("aria-controls")), true);
  }

  function turn(by) {
    const length = pick.problem.options.length;
    pick.problem.selectedIndex = (pick.problem.selectedIndex + by + length) % length;
    showProblem();
  }

  document.getElementById("picker").addEventListener("submit", (event) => event.preventDefault());
  pick.run.addEventListener("change", fillIterations);
  pick.iteration.addEventListener("change", fillProblems);
  pick.kind.addEventListener("change", fillProblems);
  pick.problem.addEventListener("change", showProblem);
  document.getElementById("previous").addEventListener("click", () => turn(-1));
  document.getElementById("next").addEventListener("click", () => turn(1));
  fill(pick.run, traces.runs.map(({ name }) => name));
  pick.run.closest("label").hidden = traces.runs.length < 2;
  fillIterations();
  return { places, goTo, update };
}

const viewer = document.getElementById("search") && unpack("traces").then((packed) => searchViewer(JSON.parse(packed)));
