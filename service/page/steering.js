// What a person does to the daemon from here: pause and resume; and the token it takes.

import { $, setText } from "./dom.js";
import { askForToken } from "./keys.js";
import { whyOf } from "./loading.js";

const TOAST_MS = 6000;

export class Steering {
  /** `restart()` begins everything anew, with another token. */
  constructor(api, head, restart) {
    this.api = api;
    this.head = head;
    this.restart = restart;
    $("pause").addEventListener("click", () => this.pause());
  }

  /** Ask for a token where there is none, or a wrong one. */
  unauthorised(why = "") {
    askForToken((token) => this.#use(token), this.api.token ? why : "");
  }

  /** Pause, or resume where rating is paused; with another token, which is kept once it has proved to be enough. */
  async pause(token = this.api.token) {
    const act = this.head.health?.paused ? "resume" : "pause";
    const tried = token !== this.api.token;
    this.head.setBusy(true);
    try {
      await this.api.post(`control/${act}`, {}, token);
      this.api.keep(token);
      this.head.setHealth({ ...this.head.health, paused: act === "pause" });
      this.#toast(act === "pause" ? "Rating is paused." : "Rating goes on.");
    } catch (error) {
      if (error.status === 403 || (tried && error.status === 401)) this.#askForAdmin(tried ? error.message : "");
      else if (error.status !== 401) this.#toast(`That did not work: ${whyOf(error)}`);
    } finally {
      this.head.setBusy(false);
    }
  }

  #askForAdmin(why) {
    askForToken((token) => this.pause(token), why, true);
  }

  #use(token) {
    this.api.keep(token);
    this.restart();
  }

  #toast(text) {
    const toast = $("toast");
    toast.hidden = false;
    setText(toast, text);
    clearTimeout(this.timer);
    this.timer = setTimeout(() => (toast.hidden = true), TOAST_MS);
  }
}
