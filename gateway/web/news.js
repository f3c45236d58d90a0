/** Live events outside of rooms: prices, notifications, trades and sessions of the community. */

const NOTES_MAX = 20; // more than are ever displayed

/** Pass the events on to the state of a session, and show notes about them. */
export function listenToNews({ connection, market, inbox, alerts, notify }) {
  connection.on('market:price', (price) => market.take(price));
  const notes = new Map(); // id of a mention -> {message, remove}: its text may be edited or deleted
  inbox.onChange(() => {
    for (const [id, { message, remove }] of notes) if (inbox.get(id)?.message !== message) remove();
  });
  connection.on('notification:new', (data) => {
    const entry = inbox.take(data);
    if (!entry) return;
    const { id, title, message, messageId } = entry;
    const isUrgent = entry.priority === 'high' || entry.priority === 'urgent';
    const remove = notify(`${title}: ${message}`, isUrgent ? 'urgent' : 'note');
    if (messageId) notes.set(id, { message, remove });
    if (notes.size > NOTES_MAX) notes.delete(notes.keys().next().value);
    alerts.load().catch(() => {}); // the notification may be a fired alert
  });
  connection.on('trade:created', ({ direction, symbol, entryPrice }) =>
    notify(`Trade: ${direction} ${symbol} at ${entryPrice}`),
  );
  connection.on('session:started', (session) => notify(`Live now: ${session.title}`));
}
