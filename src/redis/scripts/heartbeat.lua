-- ARGV: 3 and following: ids.
-- Replies {wake, blind, now, holder, blocked}, then four values for each id:
--   1, token, crashed, turn: the hold is renewed
--   2, position, 0, 0: waits
--   3, 0, 0, 0: bypassed
--   0, 0, 0, 0: unknown
local reply = {0, 0, 0, '', 0}
-- First renew the ids of this request, then remove what is overdue.
if state then
  check_server()
  for i = 3, #ARGV do
    local r = find(ARGV[i])
    if r and r.turn == 0 then
      keep_waiting(r)
    elseif r and (r.expiry or tonumber(redis.call('ZSCORE', KEYS[4], r.id)) or 0) > now then
      r.offered = 0
      hold(r, now + S.lease)
    end
  end
  reap()
  expire_disconnected()
  grant()
end
for i = 3, #ARGV do
  local r = state and find(ARGV[i])
  local code, a, b, c = 0, 0, 0, 0
  if r and r.turn > 0 then
    if r.offered == '1' then
      -- Offered by this run of the script.
      r.offered = 0
      hold(r, now + S.lease)
    end
    code, a, b, c = 1, tonumber(r.token), tonumber(r.crashed), r.turn
  elseif r then
    code, a = 2, redis.call('ZRANK', KEYS[2], r.id)
    if not a then code, a = 3, 0 end
  end
  local at = #reply
  reply[at + 1], reply[at + 2], reply[at + 3], reply[at + 4] = code, a, b, c
end
if state then
  reply[1], reply[2], reply[3], reply[4], reply[5] = wake(), S.blind, now, shown(), blocked_for()
  save()
end
return reply
