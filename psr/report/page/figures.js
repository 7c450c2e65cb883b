// Draws the figures that Python made, in the colours of the theme, and hides the groups of runs that are switched off.
"use strict";

const hidden = new Set();

function painted(figure) {
  // The figure in the theme's colours: Python's are those of an image on white.
  const { data, layout } = structuredClone(figure);
  for (const trace of data) {
    const colour = theme.colour("slot-" + trace.meta.slot);
    if (trace.line) trace.line.color = colour;
    if (trace.marker) trace.marker.color = colour;
    if (trace.error_y) trace.error_y.color = colour;
    trace.visible = !hidden.has(trace.meta.group);
  }
  const line = theme.colour("line");
  for (const axis of [layout.xaxis, layout.yaxis]) Object.assign(axis, { gridcolor: line, linecolor: line });
  for (const label of layout.annotations ?? []) label.font.color = theme.colour("text");
  layout.font.color = theme.colour("muted");
  Object.assign(layout.hoverlabel, { bgcolor: theme.colour("raised"), bordercolor: line });
  layout.hoverlabel.font.color = theme.colour("text");
  return { data, layout };
}

async function drawFigures() {
  const figures = JSON.parse(await unpack("figures"));
  const library = document.createElement("script");
  library.textContent = await unpack("plotly");
  document.head.append(library);
  const plots = [...document.querySelectorAll("[data-chart]")];
  const draw = (plot, size = {}) => {
    const { data, layout } = painted(figures[plot.dataset.chart]);
    return Plotly.react(plot, data, { ...layout, ...size }, { displayModeBar: false, responsive: true });
  };
  const drawAll = async () => {
    for (const plot of plots) {
      await draw(plot);
      await new Promise(requestAnimationFrame); // let the reader scroll meanwhile
    }
    document.body.dataset.figures = "drawn";
  };
  for (const chip of document.querySelectorAll("[data-group]")) {
    chip.addEventListener("click", () => {
      const group = Number(chip.dataset.group);
      hidden.has(group) ? hidden.delete(group) : hidden.add(group);
      chip.setAttribute("aria-pressed", String(!hidden.has(group)));
      drawAll();
    });
  }
  theme.listeners.push(drawAll);
  // On paper: light, and as wide as the page, whatever the window is. Drawn at once, since nobody waits for a promise.
  const paper = { width: 660, height: 240, autosize: false };
  addEventListener("beforeprint", () => {
    theme.printing = true;
    for (const plot of plots) draw(plot, paper);
  });
  addEventListener("afterprint", () => {
    theme.printing = false;
    for (const plot of plots) draw(plot, { autosize: true });
  });
  await drawAll();
}

drawFigures();
