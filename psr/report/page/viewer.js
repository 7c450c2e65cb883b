// The search viewer: pick an iteration and a problem, alone or beside another run's search of the same problem.
"use strict";

function searchViewer(traces) {
  const pick = Object.fromEntries(
    ["run", "iteration", "kind", "problem", "beside"].map((name) => [name, document.getElementById("pick-" + name)]),
  );
  const article = document.getElementById("problem");
  const beside = document.getElementById("beside");
  const pair = document.getElementById("searches");
  const told = document.getElementById("told");

  const run = () => traces.runs[pick.run.selectedIndex];
  const iteration = () => run().iterations[pick.iteration.selectedIndex];
  const shown = () => iteration().problems.filter(KINDS[pick.kind.value]);

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

  function showProblem() {
    const problem = shown()[pick.problem.selectedIndex];
    for (const name of ["previous", "next"]) document.getElementById(name).disabled = shown().length < 2;
    if (problem) {
      showSearch(article, problem, traces.texts);
      told.textContent = `Problem ${problem.id}: ${summary(problem)}`;
    } else {
      article.replaceChildren(make("p", { class: "missing" }, "No problem of this kind in the sample."));
    }
    fillBeside(problem);
  }

  // The searches of the same problem in other places: other runs, above all.
  function others(problem) {
    return traces.runs.flatMap((run, i) =>
      run.iterations
        .filter((one) => i !== pick.run.selectedIndex || one !== iteration())
        .flatMap(({ number, problems }) => {
          const same = problems.find(({ id }) => id === problem.id);
          return same && same.text === problem.text ? [{ name: `${run.name}, M${number - 1}`, problem: same }] : [];
        }),
    );
  }

  function fillBeside(problem) {
    const found = problem ? others(problem) : [];
    fill(pick.beside, ["nothing", ...found.map(({ name }) => name)], true);
    pick.beside.closest("label").hidden = traces.runs.length < 2;
    showBeside(found);
  }

  function showBeside(found = others(shown()[pick.problem.selectedIndex])) {
    const other = found[pick.beside.selectedIndex - 1];
    beside.hidden = !other;
    pair.classList.toggle("two", Boolean(other));
    if (other) showSearch(beside, other.problem, traces.texts);
    else beside.replaceChildren();
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
  pick.beside.addEventListener("change", () => showBeside());
  document.getElementById("previous").addEventListener("click", () => turn(-1));
  document.getElementById("next").addEventListener("click", () => turn(1));
  fill(pick.run, traces.runs.map(({ name }) => name));
  pick.run.closest("label").hidden = traces.runs.length < 2;
  fillIterations();
  return { places, goTo, update };
}

const viewer = document.getElementById("search") && unpack("traces").then((packed) => searchViewer(JSON.parse(packed)));
