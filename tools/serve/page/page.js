// The page: a text goes to the service, its sound is played while it is made, and what was spoken is shown.

import { drawPieces, drawWaveform } from "./pictures.js";
import { Player, decode, wav } from "./player.js";
import { changeLanguage, translate, word } from "./words.js";

const CLIPS_KEPT = 10;

const at = (id) => document.getElementById(id);
let voices = [];
let running = null; // the speech that is being made or heard: { player, abort }

function headers() {
  const key = at("key").value;
  return key ? { Authorization: `Bearer ${key}` } : {};
}

async function loadVoices() {
  const answer = await fetch("v1/audio/voices", { headers: headers() });
  if (!answer.ok) throw await refusal(answer);
  voices = (await answer.json()).voices;
  at("voice").replaceChildren(...voices.map(({ id, name }) => new Option(name, id)));
  useDefaults();
}

function useDefaults() {
  const voice = voices.find(({ id }) => id === at("voice").value);
  at("sigma").value = voice.sigma;
  at("denoiser").value = voice.denoiser_strength;
}

/** What a field says; undefined, which leaves it to the service, if it says nothing. */
function number(id) {
  return at(id).value === "" ? undefined : Number(at(id).value);
}

function tell(error) {
  at("error").textContent = error instanceof TypeError ? word("unreachable") : error.message;
}

/** The error of an answer that is none. */
async function refusal(answer) {
  if (answer.status === 401) at("settings").open = true;
  if (answer.status === 401) return new Error(word("key_needed"));
  if (answer.status === 429) return new Error(word("busy"));
  const { error } = await answer.json().catch(() => ({ error: { message: answer.statusText } }));
  return new Error(word("refused", error));
}

/** The server-sent events of an answer. */
async function* eventsOf(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (let { done, value } = await reader.read(); !done; { done, value } = await reader.read()) {
    const parts = (text + value).split("\n\n");
    text = parts.pop();
    for (const part of parts) yield JSON.parse(part.slice("data: ".length));
  }
}

function addPiece({ text, flaw }) {
  const item = document.createElement("li");
  item.textContent = text;
  if (flaw) {
    const mark = document.createElement("strong");
    mark.className = "flaw";
    mark.textContent = ` ⚠ ${word("flaw", { flaw })}`;
    item.append(mark);
  }
  at("pieces").append(item);
}

async function receive(text, run) {
  const began = performance.now();
  const pieces = [];
  let first = null;
  let done = false;
  const body = {
    input: text, voice: at("voice").value, seed: number("seed"), sigma: number("sigma"),
    denoiser_strength: number("denoiser"), response_format: "pcm", stream_format: "sse", details: true,
  };
  const answer = await fetch("v1/audio/speech", {
    method: "POST", body: JSON.stringify(body), signal: run.abort.signal,
    headers: { "Content-Type": "application/json", ...headers() },
  });
  if (!answer.ok) throw await refusal(answer);
  at("pieces").replaceChildren();
  at("result").hidden = false;
  for await (const event of eventsOf(answer)) {
    if (event.type === "speech.piece") {
      pieces.push(event);
      addPiece(event);
      drawPieces(pieces);
    } else if (event.type === "speech.audio.delta" && event.audio) {
      first ??= (performance.now() - began) / 1000;
      run.player.add(decode(event.audio));
      drawWaveform(run.player.samples());
      at("status").textContent = word("speaking", { seconds: run.player.seconds.toFixed(1) });
    }
    done ||= event.type === "speech.audio.done";
  }
  if (!done) throw new Error(word("broken"));
  return first;
}

async function speak() {
  stop();
  const text = at("text").value;
  const rate = voices.find(({ id }) => id === at("voice").value).sampling_rate;
  const run = { player: new Player(rate), abort: new AbortController() };
  running = run;
  at("error").textContent = "";
  at("status").textContent = word("waiting");
  at("stop").disabled = false;
  try {
    const first = await receive(text, run);
    const seconds = run.player.seconds.toFixed(1);
    at("status").textContent = word("done", { seconds, first: first.toFixed(2) });
    keep(text, run.player);
    await run.player.finished();
  } catch (error) {
    run.player.stop();
    if (error.name === "AbortError") return;
    at("status").textContent = "";
    tell(error);
  } finally {
    if (running === run) end();
  }
}

function stop() {
  if (!running) return;
  running.abort.abort();
  running.player.stop();
  at("status").textContent = word("stopped", { seconds: running.player.seconds.toFixed(1) });
  end();
}

/** Nothing is left to stop; whoever is at that button with the keyboard goes on at the one before. */
function end() {
  running = null;
  if (document.activeElement === at("stop")) at("speak").focus();
  at("stop").disabled = true;
}

/** Put a clip in front of the last ones, to compare and to download. */
function keep(text, player) {
  const address = URL.createObjectURL(wav(player.samples(), player.context.sampleRate));
  const settings = `${at("voice").value}, ${word("seed")} ${at("seed").value}, σ ${at("sigma").value}`;
  const item = document.createElement("li");
  const title = document.createElement("p");
  title.textContent = `${text.length > 80 ? `${text.slice(0, 80)} …` : text} (${settings})`;
  const audio = document.createElement("audio");
  audio.controls = true;
  audio.src = address;
  audio.setAttribute("aria-label", title.textContent);
  const link = document.createElement("a");
  link.href = address;
  link.download = "speech.wav";
  link.dataset.word = "download";
  const again = document.createElement("button");
  again.type = "button";
  again.dataset.word = "again";
  again.addEventListener("click", () => {
    at("text").value = text;
    at("text").focus();
  });
  item.append(title, audio, link, again);
  at("clips").prepend(item);
  at("earlier").hidden = false;
  while (at("clips").children.length > CLIPS_KEPT) {
    const last = at("clips").lastElementChild;
    URL.revokeObjectURL(last.querySelector("audio").src);
    last.remove();
  }
  translate();
}

at("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  try {
    if (!voices.length) await loadVoices();
    await speak();
  } catch (error) {
    tell(error);
  }
});
at("settings").addEventListener("invalid", () => { at("settings").open = true; }, true); // to see what is wrong
at("stop").addEventListener("click", stop);
at("voice").addEventListener("change", useDefaults);
at("language").addEventListener("click", changeLanguage);
document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) at("form").requestSubmit();
  if (event.key === "Escape") stop();
});
translate();
loadVoices().catch(tell);
