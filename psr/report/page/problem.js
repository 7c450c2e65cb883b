// Draws one searched problem into an article: its tree, and the list of its steps with candidates and verdicts.
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

// What was searched may be asked for by its kind.
const KINDS = {
  all: () => true,
  rolled: (problem) => problem.nodes.some((node) => node.event !== "kept"),
  unfinished: (problem) => !problem.finished,
  pairs: (problem) => problem.nodes.some((node) => node.event === "kept" && node.margin > 0),
};

// How a search went, in a few words.
function summary(problem) {
  const events = (event) => problem.nodes.filter((node) => node.event === event).length;
  const facts = [
    problem.finished ? "finished" : "unfinished",
    count(events("kept"), "step") + " kept",
    events("rolled_back") && `${events("rolled_back")} rolled back`,
    events("tied") && count(events("tied"), "tie"),
    count(problem.nodes.filter((node) => node.event === "kept" && node.margin > 0).length, "step pair"),
  ].filter(Boolean);
  return facts.join(" · ");
}

// Shows `problem` in `article`; `html` are the texts by number.
function showSearch(article, problem, html) {
  const unfilled = new Map(); // what fills the body of a step that has not been opened yet: most never are
  const expansionId = (i) => `${article.id}-expansion-${i}`;
  const text = (name, number, attributes = {}) => {
    const element = make(name, { class: "text", ...attributes });
    element.innerHTML = html[number];
    return element;
  };
  // Candidates are called c1, c2, ... as they were sampled, without what was sampled before.
  const called = (node, index) => "c" + (1 + node.candidates.findIndex((candidate) => candidate.index === index));

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
    const body = make("div", { class: "body", id: expansionId(i), hidden: "" });
    const button = make(
      "button",
      { type: "button", "aria-expanded": "false", "aria-controls": expansionId(i), "data-expansion": i },
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
    toggle(button, document.getElementById(expansionId(i)), true);
    button.focus();
    button.scrollIntoView({ block: "center" });
  }

  const list = make("ol", { class: "expansions" }, ...problem.nodes.map(expansionItem));
  const roles = ["chosen", "rejected", "other"].map((role) =>
    make("span", {}, make("span", { class: "badge " + role }), role),
  );
  const back = KINDS.rolled(problem) ? "; dashed lines were taken back" : "";
  const key = make("figcaption", { class: "key" }, ...roles, make("span", {}, `number: wins${back}`));
  const all = make("button", { type: "button", class: "plain" }, "Expand all");
  all.addEventListener("click", () => {
    for (const button of list.querySelectorAll("button[aria-expanded]")) {
      toggle(button, document.getElementById(button.getAttribute("aria-controls")), true);
    }
  });
  const scroll = make("div", { class: "tree-scroll", tabindex: "0", role: "group", "aria-label": "Search tree" });
  scroll.append(drawTree(problem.nodes, describe, open));
  article.replaceChildren(
    make(
      "header",
      {},
      text("p", problem.text, { class: "text statement" }),
      make("p", { class: "caption" }, summary(problem) + " ", all),
    ),
    make("div", { class: "search-grid" }, make("figure", { class: "tree" }, scroll, key), list),
  );
  const first = problem.nodes.findIndex((node) => node.margin > 0);
  const button = article.querySelector(`button[data-expansion="${Math.max(first, 0)}"]`);
  if (button) toggle(button, document.getElementById(button.getAttribute("aria-controls")), true);
}
