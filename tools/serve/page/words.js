// The words of the page, in English and Chinese.

const WORDS = {
  en: {
    title: "Speak", text: "Text", hint: "Ctrl+Enter speaks, Escape stops.", settings: "Settings", voice: "Voice",
    seed: "Seed", sigma: "Noise (sigma)", denoiser: "Denoiser", key: "Key", speak: "Speak", stop: "Stop",
    result: "What was spoken", waveform: "Waveform", mel: "Mel spectrogram: time to the right, pitch upwards",
    alignment: "Alignment: time to the right, the text upwards; a line from corner to corner is good",
    gate: "Gate: the probability, frame by frame, that the sentence ends",
    earlier: "The last clips", download: "Download", again: "Use this text",
    waiting: "Waiting for the first sound …", speaking: "Speaking: {seconds} s are made",
    done: "Done: {seconds} s of speech; the first sound came after {first} s", stopped: "Stopped after {seconds} s",
    flaw: "listen to this one: it {flaw}", broken: "The answer broke off. Try again.",
    unreachable: "The service cannot be reached. Is it still running?",
    key_needed: "This service needs a key: put it into the settings.",
    busy: "Too many texts are being spoken. Try again in some seconds.", refused: "{message}",
    another: "中文",
  },
  zh: {
    title: "语音合成", text: "文本（英文）", hint: "Ctrl+Enter 开始朗读，Esc 停止。", settings: "设置", voice: "声音",
    seed: "随机种子", sigma: "噪声强度 (sigma)", denoiser: "降噪强度", key: "密钥", speak: "朗读", stop: "停止",
    result: "合成结果", waveform: "波形", mel: "梅尔频谱：横轴为时间，纵轴为频率",
    alignment: "对齐：横轴为时间，纵轴为文本；从一角到另一角的一条线表示良好",
    gate: "停止门：每一帧处句子结束的概率",
    earlier: "最近的音频", download: "下载", again: "使用这段文本",
    waiting: "正在等待第一段声音……", speaking: "正在朗读：已合成 {seconds} 秒",
    done: "完成：共 {seconds} 秒语音，{first} 秒后出声", stopped: "已停止，共 {seconds} 秒",
    flaw: "请仔细听这一句：{flaw}", broken: "回答中断，请重试。",
    unreachable: "无法连接服务，它还在运行吗？",
    key_needed: "此服务需要密钥：请在设置中填写。",
    busy: "正在朗读的文本太多，请稍候几秒再试。", refused: "服务的回答：{message}",
    another: "English",
  },
};

let language = navigator.language.startsWith("zh") ? "zh" : "en";

/** A word or sentence in the page's language; {name} in it becomes values[name]. */
export function word(name, values = {}) {
  return WORDS[language][name].replace(/\{(\w+)\}/g, (_, key) => values[key]);
}

/** Put the page's language into all that has data-word. */
export function translate() {
  document.documentElement.lang = language;
  for (const element of document.querySelectorAll("[data-word]")) {
    element.textContent = word(element.dataset.word);
  }
  document.title = word("title");
  const button = document.getElementById("language");
  button.textContent = word("another");
  button.lang = language === "en" ? "zh" : "en";
}

export function changeLanguage() {
  language = language === "en" ? "zh" : "en";
  translate();
}
