// Unpacks what the page carries compressed. Knows nothing of what it is.
"use strict";

async function unpack(name) {
  const packed = document.getElementById("packed-" + name).textContent;
  const bytes = Uint8Array.from(atob(packed), (character) => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).text();
}
