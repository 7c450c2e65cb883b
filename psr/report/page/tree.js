// Draws a search as a tree: a row per depth, the solution on the left, what was rolled back or tied to its right.
"use strict";

const TREE = { x: 38, y: 50, radius: 13, margin: 22 };

function svg(name, attributes, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

// Best first, as in the list beside the tree.
function ranked(node) {
  const rank = (candidate) => (candidate.index === node.chosen ? -1e9 : -candidate.score);
  return [...node.candidates].sort((a, b) => rank(a) - rank(b));
}

// The place of every candidate, and of the chosen one that its expansion continued.
function places(nodes) {
  const parents = [];
  const chain = []; // expansions whose chosen candidates the search stands on
  nodes.forEach((node, i) => {
    chain.length = node.depth;
    parents[i] = node.depth ? chain[node.depth - 1] : null;
    if (node.event !== "tied") chain.push(i);
  });
  const free = []; // by depth, the first column that nothing stands in
  const columns = [];
  const order = nodes.map((_, i) => i).sort((a, b) => (nodes[b].event === "kept") - (nodes[a].event === "kept") || a - b);
  for (const i of order) {
    const { depth, candidates } = nodes[i];
    const above = parents[i] === null ? 0 : columns[parents[i]] ?? 0;
    columns[i] = Math.max(free[depth] ?? 0, above);
    free[depth] = columns[i] + Math.max(candidates.length, 1) + 0.4;
  }
  return { parents, columns };
}

// Tab reaches the tree once; arrows go from step to step, and Enter opens one in the list.
function steer(event, groups, i, open) {
  const places = { ArrowRight: i + 1, ArrowDown: i + 1, ArrowLeft: i - 1, ArrowUp: i - 1, Home: 0, End: groups.length - 1 };
  if (event.key === "Enter" || event.key === " ") open(i);
  else if (!(event.key in places)) return;
  event.preventDefault();
  const next = groups[places[event.key]];
  if (!next) return;
  groups[i].setAttribute("tabindex", "-1");
  next.setAttribute("tabindex", "0");
  next.focus();
}

function drawTree(nodes, describe, open) {
  const { parents, columns } = places(nodes);
  const at = (column, depth) => [TREE.margin + column * TREE.x, TREE.margin + (depth + 1) * TREE.y];
  const [rootX, rootY] = at(0, -1);
  const edges = svg("g", { class: "edges" });
  const dots = svg("g", { class: "dots" });
  const groups = [];
  let width = 0;
  let height = 0;
  nodes.forEach((node, i) => {
    const [fromX, fromY] = parents[i] === null ? [rootX, rootY] : at(columns[parents[i]], node.depth - 1);
    const best = node.candidates.find((candidate) => candidate.index === node.chosen);
    const group = svg("g", {
      class: "branch " + node.event,
      "data-expansion": i,
      tabindex: i ? -1 : 0,
      role: "button",
      "aria-label": `Step ${node.depth + 1}, ${EVENTS[node.event]}; ${best ? describe(node, best) : "no candidate"}`,
    });
    ranked(node).forEach((candidate, k) => {
      const [x, y] = at(columns[i] + k, node.depth);
      const role = candidate.index === node.chosen ? "chosen" : candidate.index === node.rejected ? "rejected" : "other";
      const bend = `M${fromX},${fromY} C${fromX},${fromY + TREE.y * 0.6} ${x},${y - TREE.y * 0.6} ${x},${y}`;
      edges.append(svg("path", { d: bend, class: `${node.event} ${role}` }));
      const title = svg("title", {});
      title.textContent = describe(node, candidate);
      const score = svg("text", { x, y, dy: "0.35em" });
      score.textContent = candidate.score;
      group.append(svg("g", { class: role }, title, svg("circle", { cx: x, cy: y, r: TREE.radius }), score));
      width = Math.max(width, x);
      height = Math.max(height, y);
    });
    groups.push(group);
    group.addEventListener("click", () => open(i));
    group.addEventListener("keydown", (event) => steer(event, groups, i, open));
    dots.append(group);
  });
  const root = svg("circle", { class: "root", cx: rootX, cy: rootY, r: 5 });
  const size = [Math.max(width, rootX) + TREE.margin, Math.max(height, rootY) + TREE.margin];
  return svg(
    "svg",
    {
      viewBox: `0 0 ${size.join(" ")}`,
      width: size[0],
      height: size[1],
      role: "group",
      "aria-label": `Tree of ${nodes.length} expansions: arrow keys go from one to the next, Enter opens it in the list`,
    },
    edges,
    root,
    dots,
  );
}
