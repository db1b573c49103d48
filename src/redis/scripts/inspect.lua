-- ARGV: 3 how many waiters to show
-- Replies {last token, holders, waiters}; each of those {record, age in microseconds}. Writes nothing, so a replica would run it and show what may be old.
local info = redis.pcall('INFO', 'replication')
if type(info) == 'string' and string.find(info, 'role:slave', 1, true) then return redis.error_reply('READONLY this server is a replica') end
local holders, waiters = {}, {}
local function show(list, r, since)
  if r then list[#list + 1] = {write(r), math.max(now - since, 0)} end
end
local r = sole()
if r and r.expiry > now then show(holders, r, r.turn) end
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[4], string.format('(%.0f', now), '+inf')) do
  r = find(id)
  show(holders, r, r and r.turn)
end
for _, id in ipairs(redis.call('ZRANGE', KEYS[2], 0, tonumber(ARGV[3]) - 1)) do
  local deadline = redis.call('ZSCORE', KEYS[3], id)
  if deadline and tonumber(deadline) > now then
    r = find(id)
    show(waiters, r, r and tonumber(r.number))
  end
end
return {string.match(redis.call('GET', KEYS[6]) or '0', '^%d+'), holders, waiters}
