// Says inside JupyterLab when the node's lease ends, and warns 30 and 10 minutes before.
// Plain JavaScript in the form in which JupyterLab loads extensions, so that there is nothing to build. It asks the
// route of labkit.lab.lease, which gives the server's time too: a laptop's clock may be wrong.
'use strict';
(() => {
  const ASK_EVERY_MS = 20_000;
  const MINUTE_MS = 60_000;
  // JupyterLab cuts a notification off after 140 letters
  const soon = (left, at) =>
    `The node's lease ends in ${left}, at ${at}. Download what you want to keep, or run 'collect' or 'extend' where you made the node.`;
  const LEVELS = [
    { upTo: Infinity, type: 'info', autoClose: 15_000, says: (left, at) => `This node is reserved until ${at}, for ${left}.` },
    { upTo: 30 * MINUTE_MS, type: 'warning', autoClose: false, says: soon },
    { upTo: 10 * MINUTE_MS, type: 'error', autoClose: false, says: soon },
    { upTo: 0, type: 'error', autoClose: false, says: (left, at) =>
      `The node's lease ended at ${at}. The node may be gone at any moment: download what you want to keep now.` },
  ];

  const length = ms => {
    const minutes = Math.max(1, Math.round(ms / MINUTE_MS));
    return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${String(minutes % 60).padStart(2, '0')} min`;
  };

  const clock = end => {
    const sameDay = end.toDateString() === new Date().toDateString();
    const time = end.toLocaleTimeString([], { hour: '2-digit', minute: '2-digit' });
    return sameDay ? time : `${end.toLocaleDateString()} ${time}`;
  };

  async function ask(settings) {
    const headers = settings.token ? { Authorization: `token ${settings.token}` } : {};
    const { fetch, baseUrl } = settings; // called as a method of settings, the browser's fetch refuses
    const answer = await fetch(`${baseUrl}labkit/lease`, { headers, cache: 'no-store' });
    if (!answer.ok) throw new Error(`labkit/lease: ${answer.status}`);
    return answer.json();
  }

  function activate(app) {
    let said = { end: null, level: -1, id: null };

    async function look() {
      const { end, now } = await ask(app.serviceManager.serverSettings);
      if (end === null) return;
      const left = Date.parse(end) - Date.parse(now);
      const level = LEVELS.findLastIndex(it => left <= it.upTo);
      // each level once; a lease that was extended begins again
      if (end === said.end && level <= said.level) return;
      if (said.id !== null) await app.commands.execute('apputils:dismiss-notification', { id: said.id });
      const { type, autoClose, says } = LEVELS[level];
      said = { end, level, id: null };
      said.id = await app.commands.execute('apputils:notify', {
        message: says(length(left), clock(new Date(end))), type, options: { autoClose },
      });
    }

    let refused = false;
    const round = () => look().then(() => { refused = false; }, error => {
      // once: a server that is away or being replaced is JupyterLab's own to report
      if (!refused) console.warn(`labkit-lease: ${error.message}`);
      refused = true;
    });
    app.restored.then(() => { round(); setInterval(round, ASK_EVERY_MS); });
  }

  const plugin = { id: 'labkit-lease:notice', description: "Says when the node's lease ends.", autoStart: true, activate };
  window._JUPYTERLAB = window._JUPYTERLAB || {};
  window._JUPYTERLAB['labkit-lease'] = {
    init: () => undefined,
    get: async () => () => ({ __esModule: true, default: plugin }),
  };
})();
