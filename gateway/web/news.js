/** Live events outside of rooms: prices, notifications, trades and sessions of the community. */

/** Pass the events on to the state of a session, and show notes about them. */
export function listenToNews({ connection, market, inbox, alerts, tell }) {
  connection.on('market:price', (price) => market.take(price));
  connection.on('notification:new', (data) => {
    const entry = inbox.take(data);
    if (!entry) return;
    const isUrgent = entry.priority === 'high' || entry.priority === 'urgent';
    tell(`${entry.title}: ${entry.message}`, isUrgent ? 'urgent' : 'note');
    alerts.load().catch(() => {}); // the notification may be a fired alert
  });
  connection.on('trade:created', ({ direction, symbol, entryPrice }) =>
    tell(`Trade: ${direction} ${symbol} at ${entryPrice}`),
  );
  connection.on('session:started', (session) => tell(`Live now: ${session.title}`));
}
