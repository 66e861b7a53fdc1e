package e2e;

import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;

/**
 * Runs the cases of cases.txt through RabbitMQ's Java client, one line a case.
 *
 * <p>{@code E2E_URL=amqp://… java e2e.Main [CASE …]} prints {@code ok NAME} or {@code FAIL NAME: why} and exits 1 if any failed. A
 * case that needs a restart prints {@code restart term} or {@code restart kill} and waits for the line {@code restarted} on standard
 * input.
 */
public final class Main {
    private static final long CASE_SECONDS = 90;
    private static final BufferedReader INPUT = new BufferedReader(new InputStreamReader(System.in));

    private Main() {}

    /** Asks whoever runs us to restart the broker, and waits until it serves again. */
    static void restart(String how) throws IOException {
        System.out.println("restart " + how);
        String answer = INPUT.readLine();
        if (!"restarted".equals(answer)) {
            throw new AssertionError("nobody restarted the broker: " + answer);
        }
    }

    /** Runs one case; returns why it failed, or null. */
    private static String run(ExecutorService executor, Cases.Case body) {
        try (Session session = new Session(System.getenv("E2E_URL"))) {
            executor.submit(() -> {
                body.run(session);
                return null;
            }).get(CASE_SECONDS, TimeUnit.SECONDS);
            return null;
        } catch (TimeoutException error) {
            return "no end after " + CASE_SECONDS + " s";
        } catch (ExecutionException error) {
            return String.valueOf(error.getCause()).replaceAll("\\s+", " ");
        } catch (Exception error) {
            return String.valueOf(error).replaceAll("\\s+", " ");
        }
    }

    public static void main(String[] arguments) {
        List<String> names = List.of(arguments);
        ExecutorService executor = Executors.newCachedThreadPool();
        boolean failed = false;
        for (Map.Entry<String, Cases.Case> each : Cases.all().entrySet()) {
            if (!names.isEmpty() && !names.contains(each.getKey())) {
                continue;
            }
            String why = run(executor, each.getValue());
            failed |= why != null;
            System.out.println(why == null ? "ok " + each.getKey() : "FAIL " + each.getKey() + ": " + why);
        }
        System.exit(failed ? 1 : 0);
    }
}
