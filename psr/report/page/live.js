// The page of a run that is under way: asks its own server what is new, and keeps the reader's place.
"use strict";

const ASK_EVERY = 1000; // milliseconds
const PLACE = "psr-report-place";

function duration(seconds) {
  if (seconds < 60) return `${Math.round(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

function say(id, text) {
  const element = document.getElementById(id);
  if (element.textContent !== text) element.textContent = text; // a screen reader reads what has changed
}

function showPhase(phase) {
  const bar = document.getElementById("live-share");
  bar.hidden = !phase;
  if (!phase) {
    say("live-phase", "The run is not under way.");
    say("live-figures", "");
    return;
  }
  Object.assign(bar, { max: Math.max(phase.total, 1), value: phase.done });
  say("live-phase", phase.silent ? `${phase.title}: no sign of life` : phase.title);
  const left = phase.seconds_left !== null && phase.done < phase.total && `${duration(phase.seconds_left)} left`;
  const rate = phase.rate > 0 && `${phase.rate.toPrecision(3)}/s`;
  const share = `${phase.done.toLocaleString("en")} of ${phase.total.toLocaleString("en")}`;
  const since = phase.silent && `last heard of at ${new Date(1000 * phase.time).toLocaleTimeString("en-GB")}`;
  say("live-figures", [share, rate, left, phase.note, since].filter(Boolean).join(", "));
}

async function watchRun() {
  const version = document.getElementById("live").dataset.version;
  const shown = await viewer;
  let traces = null; // what the page came with may be older than the first answer
  const place = sessionStorage.getItem(PLACE);
  if (shown && place) shown.goTo(JSON.parse(place));
  sessionStorage.removeItem(PLACE);
  for (;;) {
    try {
      const status = await (await fetch("status")).json();
      showPhase(status.phase);
      if (status.page !== version) {
        if (shown) sessionStorage.setItem(PLACE, JSON.stringify(shown.places()));
        location.reload();
        return;
      }
      if (shown && status.traces !== traces) {
        const answer = await fetch("traces");
        if (answer.ok) {
          shown.update(await answer.json());
          traces = status.traces;
        }
      }
    } catch {
      say("live-phase", "The server of this page has ended.");
      say("live-figures", "The page stays as it was.");
    }
    await new Promise((resolve) => setTimeout(resolve, ASK_EVERY));
  }
}

watchRun();
