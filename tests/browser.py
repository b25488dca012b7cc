"""A person with a browser at Airflow's pages: Debian's chromium, without a screen."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from roiflow.deployment.airflow import Airflow
from tests import needs

SECONDS = 60.0
FLAGS = ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--no-proxy-server")


@contextmanager
def open_browser(folder: Path, size: str = "1500,1000") -> Iterator[Any]:
    """A chromium whose profile is in `folder`; of Debian's packages."""
    from selenium import webdriver as selenium

    driver = needs.program("chromedriver", "chromium-driver")
    options = selenium.ChromeOptions()
    options.binary_location = needs.program("chromium", "chromium")
    for flag in (*FLAGS, f"--window-size={size}", f"--user-data-dir={folder}"):
        options.add_argument(flag)
    browser = selenium.Chrome(options=options, service=selenium.ChromeService(driver))
    try:
        yield browser
    finally:
        browser.quit()


def press_trigger(
    browser: Any, airflow: Airflow, dag: str, login: tuple[str, str], source: str | None = None
) -> None:
    """Log in, open the DAG's trigger form, choose a source where one is named, press Trigger."""
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.expected_conditions import element_to_be_clickable
    from selenium.webdriver.support.ui import WebDriverWait

    def find(how: str, what: str) -> Any:
        return WebDriverWait(browser, SECONDS).until(element_to_be_clickable((how, what)))

    browser.get(f"{airflow.address}/dags/{dag}")
    for name, text in zip(("username", "password"), login, strict=True):
        find(By.NAME, name).send_keys(text)
    find(By.CSS_SELECTOR, "button[type=submit]").click()
    find(By.CSS_SELECTOR, "[data-testid=trigger-dag-button]").click()
    find(By.NAME, "element_week")
    if source is not None:
        chosen = browser.find_element(By.CSS_SELECTOR, "#element_source input[role=combobox]")
        chosen.send_keys(source, Keys.ENTER)
    find(By.XPATH, "//*[@role='dialog']//button[normalize-space()='Trigger']").click()
    WebDriverWait(browser, SECONDS).until(lambda _: "/runs/" in browser.current_url)


def wait_for_end(browser: Any, seconds: float) -> str:
    """The state that the run's page shows once nothing runs any more."""
    from selenium.common.exceptions import StaleElementReferenceException
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    badge = "[data-testid=header-card] [data-testid=state-badge]"

    def ended(_: Any) -> str | None:
        shown = [one.text for one in browser.find_elements(By.CSS_SELECTOR, badge)]
        return shown[0] if shown and shown[0] in {"Success", "Failed"} else None

    stale = [StaleElementReferenceException]
    return str(WebDriverWait(browser, seconds, ignored_exceptions=stale).until(ended))
